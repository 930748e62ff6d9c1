"""The HTML report: self-contained, complete, and alive in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from clips import panning, save
from PIL import Image

from longgen.metrics.base import Score
from longgen.metrics.evaluate import Request, evaluate
from longgen.report.html import write_report

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Tags, links and text of a page; fails on a tag that is closed without being open."""

    VOID = {"meta", "img", "br", "link", "path", "use", "rect", "image"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.ids: dict[str, int] = {}
        self.rows: dict[str, int] = {}
        self.inside = ""
        self.feed(text)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "table":
            self.inside = str(found.get("id"))
        if tag == "tr":
            self.rows[self.inside] = self.rows.get(self.inside, 0) + 1
        self.sources += [str(found[k]) for k in ("src",) if found.get(k)]
        self.links += [str(found["href"])] if tag == "a" else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos (one with a sidecar and an awkward name), one broken, scored by metrics with curves and a matrix."""
    folder = tmp_path_factory.mktemp("report")
    save(folder / "a.mp4", panning(17, 48, 64, 2))
    name = "café <b>& 100 %.mp4"
    save(folder / name, panning(17, 48, 64, 3, seed=1))
    (folder / name).with_suffix(".json").write_text(json.dumps({"windows": {"frames": [[0, 8], [8, 17]]}}))
    (folder / "broken.mp4").write_bytes(b"no video")
    videos = tuple(sorted(folder.glob("*.mp4")))
    result = evaluate(Request(videos, ("temporal_flickering", "coherence", "drift_luma", "transition")))
    assert result is not None
    return write_report(result, folder / "report.html")


def test_report_is_whole_and_self_contained(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert page.rows["summary"] == 1 + 4
    assert page.rows["scores"] == 1 + 2
    assert page.rows["skipped"] == 1
    assert len(page.sources) == 16
    assert all(s.startswith("data:image/jpeg;base64,") for s in page.sources)
    assert not re.findall(
        r'(?:src|href)="https?://|url\(|@import', re.sub(r'xlink:href="#[^"]*"|url\(#[^)]*\)', "", text)
    )
    assert "<b>&" not in text, "names are escaped"
    assert "café &lt;b&gt;&amp; 100 %.mp4" in text
    assert {"a.mp4", "caf%C3%A9%20%3Cb%3E%26%20100%20%25.mp4"} == set(page.links)
    assert text.count("<svg") >= 2 * 3, "curves and matrix of each video"
    assert "needs the shots" in text


def test_boundaries_are_marked_and_same_data_give_the_same_report(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    marks = text.count("stroke: #c2571a")
    assert marks == 1, "one boundary in the drift curve of the video with a sidecar; a lag axis bears none"
    videos = tuple(sorted(report.parent.glob("*.mp4")))
    result = evaluate(Request(videos, ("temporal_flickering", "coherence", "drift_luma", "transition")))
    assert result is not None
    assert write_report(result, report.with_name("again.html")).read_text(encoding="utf-8") == text


def test_many_videos_stay_one_readable_file(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("longgen.report.html.DETAILED", 1)
    result = evaluate(
        Request((report.parent / "a.mp4", report.parent / "café <b>& 100 %.mp4"), ("temporal_flickering",))
    )
    assert result is not None
    text = write_report(result, report.with_name("few.html")).read_text(encoding="utf-8")
    assert "1 more stand in the table below" in text
    assert Page(text).rows["scores"] == 1 + 2


@pytest.mark.skipif(BROWSER is None, reason="no chromium here; the page is parsed by the other tests")
def test_report_opens_in_a_browser(report: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=3000"]
    size = ["--window-size=1200,2400", f"--user-data-dir={tmp_path / 'profile'}"]
    subprocess.run(
        [str(BROWSER), *flags, *size, f"--screenshot={shot}", report.as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    picture = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert picture.shape[1] == 1200
    colourful = (picture.max(-1) - picture.min(-1) > 60).mean()
    assert colourful > 0.01, "thumbnails and plots are painted"
    assert (picture.sum(-1) < 200).mean() > 0.002, "text is painted"
    assert (picture[:60] < 250).any(), "the page begins at the top"


def test_scores_without_value_never_reach_a_number(report: Path) -> None:
    text = re.sub(r"<svg.*?</svg>|base64,[^\"]*", "", report.read_text(encoding="utf-8"), flags=re.S)
    assert not re.search(r"\bnan\b", text, flags=re.I)
    assert Score.none("x").value is None
