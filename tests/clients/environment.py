"""The clients, in an environment of their own: `.clients/` has node packages and Python environments, made where they are missing."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SDKS = Path(__file__).parent / "sdks"

# Versions are pinned: what passes today is to pass tomorrow, and a new version is looked at before it is believed.
NODE = {
    "@openai/codex": "0.171.0",
    "@anthropic-ai/claude-code": "2.1.197",
    "opencode-ai": "1.18.33",
    "@qwen-code/qwen-code": "0.15.10",
    "@continuedev/cli": "1.5.47",
    "ai": "6.0.326",
    "@ai-sdk/openai": "3.0.141",
    "@ai-sdk/anthropic": "^3.0.0",
    "@ai-sdk/openai-compatible": "^2.0.0",
    "openai": "6.49.0",
    "@anthropic-ai/sdk": "1.14.0",
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
        "llm==0.36",
    ],
    "aider": ["aider-chat>=0.86,<0.87"],
}


@dataclass(frozen=True)
class Environment:
    folder: Path

    @property
    def node(self) -> Path:
        """Where `node_modules` is."""
        return self.folder / "node"

    def python(self, name: str) -> Path:
        """The folder of an environment's programs."""
        return self.folder / name / "bin"

    def ready_node(self) -> None:
        """Raises CalledProcessError."""
        self.node.mkdir(parents=True, exist_ok=True)
        packages = {"private": True, "type": "module", "dependencies": NODE}
        if self.stale(self.node, packages):
            (self.node / "package.json").write_text(json.dumps(packages, indent=1))
            subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=self.node, check=True)
            self.done(self.node, packages)
        for file in SDKS.glob("*.mjs"):  # beside node_modules, where node looks for packages
            shutil.copy(file, self.node)

    def ready_python(self, name: str) -> None:
        """Raises CalledProcessError."""
        if not self.stale(self.folder / name, PYTHON[name]):
            return
        uv = str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(self.folder / name)], check=True)
        install = [uv, "pip", "install", "-q", "--python", str(self.python(name) / "python")]
        # Without the links of this machine's own environment, whose wheels are another machine's builds.
        subprocess.run([*install, *PYTHON[name]], check=True, env=os.environ | {"UV_FIND_LINKS": ""})
        self.done(self.folder / name, PYTHON[name])

    def stale(self, folder: Path, wanted: object) -> bool:
        stamp = folder / ".installed"
        return not stamp.exists() or stamp.read_text() != digest(wanted)

    def done(self, folder: Path, wanted: object) -> None:
        (folder / ".installed").write_text(digest(wanted))


def digest(wanted: object) -> str:
    return hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()


def version_of(environment: Environment, package: str) -> str:
    """Of a node package."""
    file = environment.node / "node_modules" / package / "package.json"
    return str(json.loads(file.read_text())["version"]) if file.exists() else ""
