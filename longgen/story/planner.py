"""From one paragraph to a story: by rule, offline, or through an OpenAI-compatible endpoint that the user names.

Knows sentences and one HTTP request. Whatever comes back passes the same validation as a file; nothing is ever sent
unless an endpoint is given.
"""

from __future__ import annotations

import ipaddress
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from longgen.errors import BadInput, RunFailed
from longgen.story.file import validate
from longgen.story.load import MAX_BYTES, Document, parse
from longgen.story.schema import MAX_TEXT, Story, escape, json_schema

MAX_ANSWER = MAX_BYTES
_BREAK = re.compile(r"(?<=[.!?…])\s+(?=[\"'“(]?[A-Z0-9])|\n+|;\s*|,?\s+(?:and\s+)?then\s+", re.IGNORECASE)
_LEAD = re.compile(r"^(?:and|then|next|later|afterwards|after that|finally|suddenly|meanwhile|at last)\b[\s,]*", re.I)
_PRONOUN = re.compile(r"^(?:he|she|it|they)\b", re.IGNORECASE)
_ARTICLE = re.compile(r"^(?:an?|the|one|two|three|his|her|their|its|some)\b", re.IGNORECASE)


def split(text: str, shots: int | None = None) -> list[str]:
    """Prompts out of a paragraph: one per sentence or "then", with leading pronouns replaced by what they stand for.

    Args:
        text: what happens.
        shots: how many prompts to make at most; neighbouring sentences are joined.

    >>> split("A red fox wakes in the snow. Then it runs to the river, then it drinks.")
    ['A red fox wakes in the snow', 'the red fox runs to the river', 'the red fox drinks']
    """
    parts = [_LEAD.sub("", part.strip()).strip().rstrip(".;,") for part in _BREAK.split(text.strip()) if part]
    parts = [part for part in parts if part]
    if not parts:
        raise BadInput("the text is empty; say in a sentence or two what happens")
    if len(text) > MAX_TEXT:
        raise BadInput(f"the text has {len(text)} characters; at most {MAX_TEXT}, or write a story file")
    told, subject = [], ""
    for part in parts:
        if subject and _PRONOUN.match(part):
            part = _PRONOUN.sub(subject, part, count=1)
        else:
            subject = _subject(part) or subject
        told.append(part)
    return _join(told, shots) if shots else told


def _subject(sentence: str) -> str:
    """ "A red fox wakes …" → "the red fox": what stands before the first word that looks like a verb."""
    words = sentence.split()
    if not _ARTICLE.match(sentence):
        return words[0] if words[0][0].isupper() and len(words) > 1 else ""
    for n, word in enumerate(words[2:], 2):
        verb = re.fullmatch(r"is|are|was|were|has|have|can|\w{2,}(?:ing|ed|[^s]s)", word.strip(",").lower())
        if verb:
            return " ".join([re.sub(r"^(?:an?|one)$", "the", words[0], flags=re.I), *words[1:n]]).strip(",")
    return ""


def _join(parts: list[str], shots: int) -> list[str]:
    """At most `shots` prompts, neighbours joined so that each holds about equally many sentences."""
    count = min(shots, len(parts))
    edges = [round(k * len(parts) / count) for k in range(count + 1)]
    return [". ".join(parts[a:b]) for a, b in pairwise(edges)]


def plan_offline(text: str, shots: int | None = None) -> Story:
    """A story by rule. Its shots share the video evenly and continue from one to the next."""
    data = {"version": 1, "shots": [{"prompt": escape(part)} for part in split(text, shots)]}
    return validate(Document(data, "the planned story"))


# ------------------------------------------------------------------------------------------------------- an endpoint


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server: `url` ends before `/chat/completions`. The key is sent and never shown."""

    url: str
    model: str
    key: str = ""
    timeout: float = 120.0

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput(f"--endpoint takes a URL such as https://host/v1 (got {self.url!r})")
        if parts.scheme == "http" and self.key and not _local(parts.hostname):
            raise BadInput(f"--endpoint {self.url} would send the key unencrypted; use https")


def _local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Stay(urllib.request.HTTPRedirectHandler):
    """The key goes to the host that the user named, and nowhere else."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def plan_online(text: str, endpoint: Endpoint, shots: int | None = None) -> Story:
    """A story by a language model, asked once more where its answer is no valid story.

    Raises:
        RunFailed: the server cannot be reached or refuses, or both answers are invalid; the last fault is named.
    """
    messages = [{"role": "system", "content": _instructions(shots)}, {"role": "user", "content": text}]
    fault = ""
    for _ in range(2):
        answer = _complete(endpoint, messages)
        try:
            document = parse(_unfenced(answer), "the answer")
            story = validate(document)
            for k in range(len(story.shots)):
                story.prompt_of(k)
            return story
        except BadInput as error:
            fault = str(error)
            messages += [
                {"role": "assistant", "content": answer},
                {
                    "role": "user",
                    "content": f"That is not a valid story: {fault}. Answer with the corrected JSON only.",
                },
            ]
    raise RunFailed(f"{endpoint.model} at {endpoint.url} gave no valid story: {fault}")


def _instructions(shots: int | None) -> str:
    count = f"{shots} shots" if shots else "as many shots as the text needs"
    return (
        f"Turn the user's text into {count} for a text-to-video model. Each prompt describes on its own what is seen: "
        "subject, action, place, light, camera. Describe each recurring character once under `characters` and write "
        "{name} in the prompts. Use the transition `cut` where place or time changes, else `continue`. Answer with one "
        f"JSON object that follows this schema and nothing else: {json.dumps(json_schema())}"
    )


def _complete(endpoint: Endpoint, messages: list[dict[str, str]]) -> str:
    """The text of the first choice."""
    body = {"model": endpoint.model, "messages": messages, "response_format": {"type": "json_object"}}
    headers = {"Content-Type": "application/json"}
    headers |= {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
    url = endpoint.url.rstrip("/") + "/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.build_opener(_Stay).open(request, timeout=endpoint.timeout) as response:
            raw = response.read(MAX_ANSWER + 1)
    except urllib.error.HTTPError as error:
        raise RunFailed(f"{url} answered {error.code} {error.reason}") from None
    except (urllib.error.URLError, TimeoutError, OSError) as error:
        raise RunFailed(f"{url} cannot be reached: {getattr(error, 'reason', error)}") from None
    if len(raw) > MAX_ANSWER:
        raise RunFailed(f"{url} answered with more than {MAX_ANSWER // 1_000_000} MB")
    try:
        content = json.loads(raw)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        raise RunFailed(f"{url} did not answer as chat completions do") from None
    if not isinstance(content, str):
        raise RunFailed(f"{url} answered without text")
    return content


def _unfenced(text: str) -> str:
    """Without the code fence that models put around JSON."""
    match = re.fullmatch(r"\s*```\w*\n(.*?)\n?```\s*", text, re.DOTALL)
    return match[1] if match else text
