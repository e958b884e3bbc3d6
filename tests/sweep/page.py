"""Reads a leaderboard as a browser would."""

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """Text, elements and sections of a page; refuses what is not balanced."""

    def __init__(self, path):
        super().__init__()
        self.stack, self.tags, self.sections, self.text = [], [], {}, ""
        self.feed(Path(path).read_text(encoding="utf-8"))
        self.close()
        assert self.stack == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in ("meta", "wbr"):
            self.stack.append((tag, dict(attrs).get("id")))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.text += "" if tag == "wbr" else " "

    def handle_endtag(self, tag):
        assert self.stack and self.stack.pop()[0] == tag, self.getpos()
        self.text += " "

    def handle_data(self, data):
        if "style" not in [tag for tag, _ in self.stack]:
            self.text += data
            for tag, name in self.stack:
                if tag == "section":
                    self.sections[name] = self.sections.get(name, "") + data + " "
