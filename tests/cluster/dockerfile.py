"""Read a Dockerfile: its instructions by stage. Enough for ours: no heredocs, no ONBUILD, one `FROM … AS` a stage."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction with its continuation lines joined."""

    stage: str
    """Name of the stage; "" for the last, which has none."""
    word: str
    rest: str

    @property
    def arguments(self) -> list[str]:
        """Return the instruction's words, of the JSON form or of the plain one."""
        loaded: list[str] = json.loads(self.rest) if self.rest.startswith("[") else shlex.split(self.rest)
        return loaded

    @property
    def command(self) -> str:
        """Return a RUN's shell command, without its `--mount` options."""
        return re.sub(r"^(--\w+=\S+\s+)+", "", self.rest)

    @property
    def variables(self) -> dict[str, str]:
        """Return the variables of an ENV or ARG."""
        return dict(word.split("=", 1) for word in self.arguments if "=" in word)


def instructions(path: Path) -> list[Instruction]:
    """Return a Dockerfile's instructions in order."""
    text = "\n".join(line for line in path.read_text().splitlines() if not line.lstrip().startswith("#"))
    found: list[Instruction] = []
    stage = ""
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        word, rest = line.strip().split(None, 1)
        if word == "FROM":
            named = re.fullmatch(r"\S+(?: AS (\S+))?", rest)
            assert named, rest
            stage = named.group(1) or ""
        found.append(Instruction(stage, word, rest.strip()))
    return found
