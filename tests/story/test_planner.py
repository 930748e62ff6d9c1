"""Splitting by rule, and a language model's answer under the same validation, against a server in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from longgen.errors import BadInput, RunFailed
from longgen.story.planner import Endpoint, plan_offline, plan_online, split
from longgen.story.subtitles import chapters, webvtt
from longgen.types import Shot, Timeline

GOOD = {
    "version": 1,
    "characters": {"fox": "a red fox"},
    "shots": [{"prompt": "{fox} wakes"}, {"prompt": "{fox} runs"}],
}


@pytest.mark.parametrize(
    ("text", "shots", "want"),
    [
        ("A fox wakes. It runs.", None, ["A fox wakes", "the fox runs"]),
        ("Anna walks; she sees it and then she smiles.", None, ["Anna walks", "Anna sees it", "Anna smiles"]),
        ("One thing\nanother thing", None, ["One thing", "another thing"]),
        ("a. B. C. D.", 2, ["a. B", "C. D"]),
        ("just one", 5, ["just one"]),
        ("Then, suddenly, it ends", None, ["suddenly, it ends"]),
        ("{braces} stay", None, ["{braces} stay"]),
    ],
)  # fmt: skip
def test_sentences_become_shots(text: str, shots: int | None, want: list[str]) -> None:
    assert split(text, shots) == want
    story = plan_offline(text, shots)
    assert [story.prompt_of(k) for k in range(len(story.shots))] == want


def test_texts_that_cannot_be_split() -> None:
    with pytest.raises(BadInput, match="the text is empty"):
        split(" \n ")
    with pytest.raises(BadInput, match="at most 20000"):
        split("a" * 20_001)


class Server:
    """Answers chat completions with the given contents, one after another, and keeps what it was asked."""

    def __init__(self, *answers: Any, status: int = 200) -> None:
        self.answers, self.status, self.asked = list(answers), status, list[tuple[dict[str, Any], str | None]]()

    def __enter__(self) -> Server:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append((body, self.headers.get("Authorization")))
                content = outer.answers[min(len(outer.asked), len(outer.answers)) - 1]
                told = content if isinstance(content, bytes) else json.dumps(
                    {"choices": [{"message": {"content": content}}]}
                ).encode()  # fmt: skip
                self.send_response(outer.status)
                if outer.status == 302:
                    self.send_header("Location", "http://127.0.0.1:9/stolen")
                self.end_headers()
                self.wfile.write(told)

            def log_message(self, *args: Any) -> None:
                """Quiet."""

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        return self

    def __exit__(self, *args: Any) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def secret() -> Iterator[str]:
    yield "sk-not-to-be-shown"


def test_an_answer_is_a_story(secret: str) -> None:
    with Server(f"```json\n{json.dumps(GOOD)}\n```") as server:
        story = plan_online("a fox", Endpoint(server.url, "m", secret), 2)
    assert [story.prompt_of(k) for k in range(2)] == ["a red fox wakes", "a red fox runs"]
    (body, key), *rest = server.asked
    assert not rest and key == f"Bearer {secret}" and body["model"] == "m"
    assert '"additionalProperties"' in body["messages"][0]["content"] and "2 shots" in body["messages"][0]["content"]


def test_a_bad_answer_is_asked_again_with_its_fault() -> None:
    bad = {"shots": [{"prompt": "{wolf} howls"}], "characters": {"fox": "x"}}
    with Server(json.dumps(bad), json.dumps(GOOD)) as server:
        assert len(plan_online("a fox", Endpoint(server.url, "m")).shots) == 2
    assert "unknown character 'wolf'" in server.asked[1][0]["messages"][-1]["content"]
    assert server.asked[0][1] is None


@pytest.mark.parametrize(
    ("answers", "status", "says"),
    [
        (['{"shots": []}'], 200, "gave no valid story"),
        (["not json at all"], 200, "gave no valid story"),
        ([b"<html>"], 200, "did not answer as chat completions do"),
        ([b'{"choices": []}'], 200, "did not answer as chat completions do"),
        ([b'{"choices": [{"message": {"content": null}}]}'], 200, "answered without text"),
        (["x"], 401, "answered 401"),
        (["x"], 302, "answered 302"),
        ([b"x" * 1_000_001], 200, "more than 1 MB"),
    ],
)
def test_servers_that_fail(answers: list[Any], status: int, says: str, secret: str) -> None:
    with Server(*answers, status=status) as server, pytest.raises(RunFailed, match=says) as caught:
        plan_online("a fox", Endpoint(server.url, "m", secret))
    assert secret not in str(caught.value) and "\n" not in str(caught.value)


def test_endpoints_that_are_refused(secret: str) -> None:
    with pytest.raises(BadInput, match="takes a URL"):
        Endpoint("file:///etc/passwd", "m")
    with pytest.raises(BadInput, match="use https"):
        Endpoint("http://example.com/v1", "m", secret)
    with Server("x") as server:
        url = server.url
    with pytest.raises(RunFailed, match="cannot be reached"):
        plan_online("a fox", Endpoint(url, "m", timeout=5))


# -------------------------------------------------------------------------------------------- subtitles and chapters

SHOTS = (Shot("a <b> & c\nd", 0, 12, "one"), Shot("x = y; #z", 12, 20, "two"))


def test_subtitles() -> None:
    lines = webvtt(Timeline(SHOTS, 8)).splitlines()
    assert lines[0] == "WEBVTT" and lines[2:5] == ["one", "00:00:00.000 --> 00:00:01.500", "a &lt;b&gt; &amp; c d"]
    assert "00:00:01.500 --> 00:00:02.500" in lines


def test_chapters() -> None:
    text = chapters(Timeline(SHOTS, 8))
    assert text.startswith(";FFMETADATA1\n") and text.count("[CHAPTER]") == 2
    assert "START=1500\nEND=2500\ntitle=two: x \\= y\\; \\#z" in text
