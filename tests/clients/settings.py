"""What each tool has to be told to use Stepdown, as README shows it. The tests of the tools run with exactly this."""

import shlex
from dataclasses import dataclass

ORIGIN = "http://127.0.0.1:8000"
KEY = "THE_KEY"


@dataclass(frozen=True)
class Setting:
    """place: the file that holds the text, or how it is used. language: of the block that README has."""

    tool: str
    place: str
    language: str
    text: str

    def filled(self, origin: str, key: str) -> str:
        """The text for another server."""
        return self.text.replace(ORIGIN, origin).replace(KEY, key)

    def variables(self, origin: str, key: str) -> dict[str, str]:
        """Of a shell's text: what its assignments set."""
        words = [word.partition("=") for word in self.words(origin, key)]
        return {name: value for name, found, value in words if found and name.isupper()}

    def words(self, origin: str, key: str) -> list[str]:
        """Of a shell's text: its words, those after the assignments are the command."""
        return shlex.split(self.filled(origin, key).replace("\\\n", " "))


CODEX = Setting(
    "Codex",
    "~/.codex/config.toml",
    "toml",
    """\
model = "auto"
model_provider = "stepdown"
model_providers.stepdown = { name = "Stepdown", base_url = "http://127.0.0.1:8000/v1", env_key = "STEPDOWN_API_KEY" }
""",
)
CLAUDE_CODE = Setting(
    "Claude Code",
    "environment",
    "sh",
    """\
ANTHROPIC_BASE_URL=http://127.0.0.1:8000 ANTHROPIC_AUTH_TOKEN=THE_KEY \\
  ANTHROPIC_MODEL=auto ANTHROPIC_SMALL_FAST_MODEL=auto:cheap claude
""",
)
OPENCODE = Setting(
    "opencode",
    "opencode.json",
    "json",
    """\
{"model": "stepdown/auto", "provider": {"stepdown": {
  "npm": "@ai-sdk/openai-compatible", "models": {"auto": {}},
  "options": {"baseURL": "http://127.0.0.1:8000/v1", "apiKey": "THE_KEY"}}}}
""",
)
CONTINUE = Setting(
    "Continue",
    "~/.continue/config.yaml",
    "yaml",
    """\
name: stepdown
version: 1.0.0
models:
  - {name: auto, provider: openai, model: auto, apiBase: "http://127.0.0.1:8000/v1", apiKey: THE_KEY}
""",
)
CLINE = Setting("Cline", "once", "sh", "cline auth openai --baseurl http://127.0.0.1:8000/v1 --apikey THE_KEY --modelid auto\n")
QWEN_CODE = Setting(
    "Qwen Code", "environment", "sh", "OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=THE_KEY OPENAI_MODEL=auto qwen\n"
)
AIDER = Setting(
    "aider", "environment", "sh", "OPENAI_API_BASE=http://127.0.0.1:8000/v1 OPENAI_API_KEY=THE_KEY aider --model openai/auto\n"
)
AI_SDK = Setting(
    "AI SDK",
    "JavaScript",
    "js",
    """\
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
const stepdown = createOpenAICompatible({ name: "stepdown", baseURL: "http://127.0.0.1:8000/v1", apiKey: "THE_KEY" });
const model = stepdown("auto");
""",
)
LANGCHAIN = Setting(
    "LangChain",
    "Python",
    "python",
    """\
from langchain_openai import ChatOpenAI

model = ChatOpenAI(model="auto", base_url="http://127.0.0.1:8000/v1", api_key="THE_KEY")
""",
)
OPEN_WEBUI = Setting(
    "Open WebUI",
    "environment",
    "sh",
    "OPENAI_API_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=THE_KEY ENABLE_OLLAMA_API=false open-webui serve\n",
)
SETTINGS = (CODEX, CLAUDE_CODE, OPENCODE, CLINE, CONTINUE, QWEN_CODE, AIDER, AI_SDK, LANGCHAIN, OPEN_WEBUI)
