"""HAProxy's settings as Ray writes them."""

from deployments.ports import free_port
from deployments.serve.haproxy_stand_in import SETTINGS


def write(folder, upstream, **more):
    """Those of one application with one ingress replica; returns the port. upstream: None: without an application."""
    from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
    from ray.serve.config import HTTPOptions

    port, files = free_port(), {"socket_path": "admin.sock", "server_state_file": "state", "metrics_socket_path": "metrics.sock"}
    options = HTTPOptions(host="127.0.0.1", port=port)
    made = HAProxyConfig(
        http_options=options,
        server_state_base=str(folder),
        enable_so_reuseport=True,
        is_head=True,
        maxconn=100,
        stats_port=free_port(),
        metrics_port=free_port(),
        **more,
        **{name: str(folder / file) for name, file in files.items()},
    )
    api = HAProxyApi(made, config_file_path=str(folder / SETTINGS))
    servers = [] if upstream is None else [ServerConfig(name="ingress", host="127.0.0.1", port=upstream)]
    backend = BackendConfig(name="http-stepdown", path_prefix="/", app_name="stepdown", servers=servers)
    api.set_backend_configs({"http-stepdown": backend} if servers else {})
    api._generate_config_file_internal()
    return port
