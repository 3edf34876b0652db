"""Reads an HTML page as a browser does, for tests: nesting, texts, attributes and what it would load."""

from html.parser import HTMLParser

VOID = {"meta", "img", "input", "br", "link"}
LINKING = ("src", "href", "xlink:href", "srcset", "action", "poster", "data")
LOADING = ("link", "iframe", "object", "embed", "base")


class Page(HTMLParser):
    """Checks that elements nest and keeps texts and attributes; texts of scripts and styles are left out."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of all elements of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def of_class(self, name: str) -> list[str]:
        """Return the tags of the elements that have a class."""
        return [tag for tag, attributes in self.elements if name in attributes.get("class", "").split()]

    def assert_loads_nothing(self) -> None:
        """Fail on a link out of the page, on an element that loads, and without a policy that forbids loading."""
        for tag, attributes in self.elements:
            assert tag not in LOADING
            for name in LINKING:
                assert attributes.get(name, "#").startswith(("data:", "#")), (tag, name)
        policy = next(meta["content"] for meta in self.all("meta") if "http-equiv" in meta)
        assert policy.startswith("default-src 'none';")
