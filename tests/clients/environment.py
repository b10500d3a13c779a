"""The clients, in environments of their own: `.clients/` has node packages and Python environments, made where missing."""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SDKS = Path(__file__).parent / "sdks"

# Versions are pinned: what passes today is to pass tomorrow, and a new version is looked at before it is believed.
TERMINAL = "terminal"
CLINE = "cline"
OPEN_WEBUI = "open-webui"
NODE = {
    "sdks-js": {
        "ai": "6.0.326",
        "@ai-sdk/openai": "3.0.141",
        "@ai-sdk/anthropic": "^3.0.0",
        "@ai-sdk/openai-compatible": "^2.0.0",
        "openai": "6.49.0",
        "@anthropic-ai/sdk": "1.14.0",
    },
    TERMINAL: {
        "@openai/codex": "0.171.0",
        "@anthropic-ai/claude-code": "2.1.197",
        "opencode-ai": "1.18.33",
        "@qwen-code/qwen-code": "0.15.10",
        "@continuedev/cli": "1.5.47",
    },
    CLINE: {"cline": "3.0.65"},
}
PYTHON = {
    "sdks": [
        "openai==3.57.0",
        "anthropic==2.14.0",
        "openai-agents==0.24.0",
        "pydantic-ai-slim[openai]==2.38.0",
        "langchain-openai>=1.7,<1.8",
        "langchain-anthropic>=1.7,<1.8",
    ],
    "more": [
        "litellm>=1.100",
        "dspy>=3.4,<3.5",
        "instructor==1.17.0",
        "smolagents[openai]==1.26.0",
        "llama-index-llms-openai-like==0.8.1",
    ],
    "llm": ["llm==0.36"],
    "aider": ["aider-chat>=0.86,<0.87"],
    OPEN_WEBUI: ["open-webui==0.12.4"],
}
LEFT_OUT = {OPEN_WEBUI: ("torch", "torchvision", "sentence-transformers")}
"""environment -> packages that are declared and not needed for a chat; together several gigabytes"""


@dataclass(frozen=True)
class Environment:
    folder: Path

    def node(self, name: str) -> Path:
        """The folder with `node_modules` of a group of node packages."""
        return self.folder / name

    def python(self, name: str) -> Path:
        """The folder of an environment's programs."""
        return self.folder / name / "bin"

    def missing(self, name: str) -> bool:
        wanted = packages(NODE[name]) if name in NODE else PYTHON[name]
        return self.stale(self.folder / name, wanted)

    def ready(self, name: str) -> None:
        """Raises CalledProcessError."""
        (self.ready_node if name in NODE else self.ready_python)(name)

    def ready_node(self, name: str) -> None:
        folder = self.node(name)
        folder.mkdir(parents=True, exist_ok=True)
        if self.missing(name):
            (folder / "package.json").write_text(json.dumps(packages(NODE[name]), indent=1))
            subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder, check=True)
            self.done(folder, packages(NODE[name]))

    def ready_python(self, name: str) -> None:
        if not self.missing(name):
            return
        uv = str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(self.folder / name)], check=True)
        install = [uv, "pip", "install", "-q", "--python", str(self.python(name) / "python")]
        with tempfile.TemporaryDirectory() as elsewhere:  # here uv would apply this project's own overrides
            never = "".join(f"{package} ; sys_platform == 'never'\n" for package in LEFT_OUT.get(name, ()))
            (Path(elsewhere) / "overrides.txt").write_text(never)
            subprocess.run([*install, "--overrides", "overrides.txt", *PYTHON[name]], check=True, cwd=elsewhere)
        self.done(self.folder / name, PYTHON[name])

    def stale(self, folder: Path, wanted: object) -> bool:
        stamp = folder / ".installed"
        return not stamp.exists() or stamp.read_text() != digest(wanted)

    def done(self, folder: Path, wanted: object) -> None:
        (folder / ".installed").write_text(digest(wanted))


def packages(wanted: Mapping[str, str]) -> dict[str, object]:
    """A package.json."""
    return {"private": True, "type": "module", "dependencies": dict(wanted)}


def digest(wanted: object) -> str:
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


def ready_of(names: list[str]) -> None:
    """Make environments, as `python -m tests.clients.environment NAME...` does."""
    for name in names:
        Environment(ROOT / ".clients").ready(name)


def version_of(environment: Environment, group: str, package: str) -> str:
    """Of a node package."""
    file = environment.node(group) / "node_modules" / package / "package.json"
    return str(json.loads(file.read_text())["version"]) if file.exists() else ""


if __name__ == "__main__":
    ready_of(sys.argv[1:])
