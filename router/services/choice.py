"""Which service answers a request, and what a client hears that names none."""

from router.config import Config
from router.errors import NoService, WrongKind
from router.service_settings import Kind, Service


def service_for(config: Config, kind: Kind, wanted: str) -> Service:
    """The service of that name. wanted: with aliases resolved. Raises NoService, WrongKind."""
    able = [service for service in config.services if service.kind == kind]
    if found := next((service for service in able if service.name == wanted), None):
        return found
    if not able:
        raise NoService(f"no service for {kind} is configured here; the operator lists one under `services`: {example(kind)}")
    ways = ", ".join(service.name for service in able)
    if other := next((service for service in config.services if service.name == wanted), None):
        raise WrongKind(f"{said_to_be(other)}; /v1/{kind} is answered by {ways}")
    if wanted in config.names or wanted.partition(":")[0] == "auto":
        raise WrongKind(f"{wanted[:80]!r} answers chats; /v1/{kind} is answered by {ways}")
    raise NoService(f"unknown model {wanted[:80]!r}; /v1/{kind} is answered by {ways}")


def check_chat(config: Config, wanted: str) -> None:
    """Raises WrongKind for a service that is asked for a chat."""
    if found := next((service for service in config.services if service.name == wanted), None):
        raise WrongKind(f"{said_to_be(found)}; chats are answered by auto, {', '.join(config.names)}")


def said_to_be(service: Service) -> str:
    return f"{service.name!r} is a service for {service.kind}, to be asked at POST /v1/{service.kind}"


def example(kind: Kind) -> str:
    return f"- {{name: my-model, kind: {kind}, engine: vllm or remote, ...}} (docs/services.md)"
