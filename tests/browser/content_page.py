"""A page with nothing but texts on it, under our content security policy: rendering by itself, without the desk."""

from playwright.sync_api import Page

from app.web.assets import asset, import_map
from app.web.headers import policy
from app.web.text import render_markdown

ADDRESS = "/content-alone"
HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Texts</title><script nonce="known" type="importmap">{imports}</script>
<link rel="icon" href="{icon}" type="image/svg+xml">
<link rel="stylesheet" href="{tokens}"><link rel="stylesheet" href="{content}"></head>
<body><main><h1>Texts</h1>{texts}</main><script nonce="known" type="module">
import {{ enliven }} from "/static/content.js";
import * as differences from "/static/differences.js";
import {{ syncScrolling }} from "/static/scrolling.js";
globalThis.ours = {{ enliven, differences, syncScrolling }};
globalThis.enlivened = enliven(document, {{ copy: "Copy", copied: "Copied" }});
</script></body></html>"""


def show(page: Page, *texts: str) -> None:
    """Open a page that shows `texts`, each in an element of class `prose`, and wait until it is enlivened."""
    boxes = "".join(
        f'<div class="card"><div class="prose" dir="auto">{render_markdown(text)}</div></div>' for text in texts
    )
    html = HEAD.format(
        imports=import_map(), icon=asset("icon.svg"), tokens=asset("app.css"), content=asset("content.css"), texts=boxes
    )
    headers = {"Content-Security-Policy": policy("known"), "Content-Type": "text/html; charset=utf-8"}
    page.route(f"**{ADDRESS}", lambda route: route.fulfill(body=html, headers=headers))
    page.goto(ADDRESS)
    page.evaluate("globalThis.enlivened")
    page.unroute(f"**{ADDRESS}")
