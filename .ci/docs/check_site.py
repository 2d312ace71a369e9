"""Opens every page of a built site in headless Chromium, wide and narrow: no errors, nothing beyond the screen's edge.

pip install playwright && python .ci/docs/check_site.py site [--browser /usr/bin/chromium] [--pictures FOLDER]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import sys
import threading
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTHS = (1280, 390)
# What sticks out of the page, unless it stands in something that scrolls by itself.
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


class Silent(http.server.SimpleHTTPRequestHandler):
    """Serves without a line per request."""

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def copyfile(self, *args: object) -> None:
        """A page that is left before everything of it came is no error."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().copyfile(*args)


def main() -> int:
    """Check; the number of complaints decides."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("--browser", default="/usr/bin/chromium")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each page")
    options = parser.parse_args()
    pages = sorted(path.relative_to(options.site).as_posix() for path in options.site.rglob("*.html"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(options.site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    complaints: list[str] = []
    errors: list[str] = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=options.browser, args=["--no-sandbox", "--disable-gpu"])
        for width in WIDTHS:
            view = browser.new_page(viewport={"width": width, "height": 900})
            view.on("console", lambda message: message.type == "error" and errors.append(message.text))
            view.on("pageerror", lambda error: errors.append(str(error)))
            for page in pages:
                view.goto(f"http://127.0.0.1:{server.server_port}/{page}", wait_until="load")
                if (beyond := view.evaluate(OVERFLOW)) > 0:
                    errors.append(f"{beyond} px beyond the edge")
                complaints += [f"{page} at {width}: {error}" for error in errors]
                errors.clear()
                if options.pictures:
                    options.pictures.mkdir(parents=True, exist_ok=True)
                    view.screenshot(path=options.pictures / f"{page.replace('/', '_')}-{width}.png")
        browser.close()
    print("\n".join(complaints))
    print(f"{len(pages)} pages at {WIDTHS} px: {len(complaints)} complaints")
    return bool(complaints) or not pages


if __name__ == "__main__":
    sys.exit(main())
