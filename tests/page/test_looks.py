"""What everybody must be able to read and reach: contrast, width, names, and mrkdwn's rules."""

from __future__ import annotations

import json

import pytest

from tests.page.browser import Tab
from tests.page.conftest import Sit
from tests.page.desk import Desk

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="session")]

# WCAG 2.2 AA asks for 4.5 between a text and what is behind it. Drawn with a canvas, because
# computed colours come in several notations.
FAINT = """(() => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
    const over = (colors) => {
        canvas.clearRect(0, 0, 1, 1);
        for (const color of colors) { canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1); }
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const light = (rgb) => rgb.map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (e) => {
        const found = [];
        for (let at = e; at; at = at.parentElement)
            found.unshift(getComputedStyle(at).backgroundColor);
        return found;
    };
    const faint = [];
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walk.nextNode()) {
        const e = walk.currentNode.parentElement;
        const text = walk.currentNode.data.trim();
        const seen = {opacityProperty: true, visibilityProperty: true};
        if (!text || !e.checkVisibility(seen)) continue;
        if (e.closest('[aria-hidden=true], .sr-only, .emoji, svg, :disabled, .outside')) continue;
        const back = behind(e);
        const ink = getComputedStyle(e).color;
        const pair = [over(['white', ...back]), over(['white', ...back, ink])];
        const [a, b] = pair.map(light).sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) faint.push(`${ratio.toFixed(2)} ${e.className} ${text.slice(0, 40)}`);
    }
    return faint;
})()"""

NAMELESS = """[...document.querySelectorAll('button, a[href], input, select, textarea')]
    .filter(e => e.checkVisibility())
    .filter(e => !(e.getAttribute('aria-label') || e.innerText?.trim() || e.title
        || e.labels?.length || e.placeholder))
    .map(e => e.outerHTML.slice(0, 120))"""


async def _furnish(tab: Tab) -> None:
    for text in ("/db backup orders", "/db show", "/db nonsense", "/nothing", "Hello @ben, `code`"):
        await tab.type(text, into="#pane .composer textarea")
        await tab.press("Enter")
    await tab.until("document.querySelectorAll('#pane .message').length >= 5")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_every_text_stands_out_from_what_is_behind_it(
    sit: Sit, app: Desk, *, dark: bool
) -> None:
    ana = await sit("U0ANA")
    await ana.dark(on=dark)
    await _furnish(ana)
    for panel in ("wire", "faults", "accounts"):
        await ana.click(f"#topbar [data-panel={panel}]")
        await ana.until(f"!document.querySelector('#panel-{panel}').hidden")
        assert await ana.eval(FAINT) == []
    await ana.click("#drawer-close")
    await ana.click(".sitter")
    await ana.until("document.querySelector('.people-menu')")
    assert await ana.eval(FAINT) == []


async def test_everything_that_can_be_used_has_a_name(sit: Sit, app: Desk) -> None:
    ana = await sit("U0ANA")
    await _furnish(ana)
    for panel in ("wire", "faults", "accounts"):
        await ana.click(f"#topbar [data-panel={panel}]")
        assert await ana.eval(NAMELESS) == []


@pytest.mark.parametrize("width", [900, 1100, 1440])
async def test_nothing_runs_out_of_the_window(sit: Sit, app: Desk, width: int) -> None:
    ana = await sit("U0ANA")
    await ana.size(width, 700)
    await _furnish(ana)
    await ana.eval("document.querySelector('.message [aria-label=\"Reply in thread\"]').click()")
    await ana.until("!document.querySelector('#thread').hidden")
    out = """[...document.querySelectorAll('#pane *, #thread *, #side *')]
        .filter(e => e.checkVisibility() && !e.closest('.sr-only, .table, pre, svg, .complete'))
        .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
        .map(e => e.outerHTML.slice(0, 100))"""
    assert await ana.eval(out) == []
    assert await ana.eval("document.documentElement.scrollWidth") == width


MRKDWN = [
    ("*bold* _it_ ~no~ `a*b*`", "<strong>bold</strong> <em>it</em> <s>no</s> <code>a*b*</code>"),
    ("snake_case_name 2*3*4", "snake_case_name 2*3*4"),
    ("&lt;b&gt; &amp;amp; &quot;", "&lt;b&gt; &amp;amp; &amp;quot;"),
    ("<https://x.example/a|the *page*>", "<a>the *page*</a>"),
    ("<javascript:alert(1)|click>", "&lt;javascript:alert(1)|click&gt;"),
    ("<script>alert(1)</script>", "&lt;script&gt;alert(1)&lt;/script&gt;"),
    (
        "<@U0BEN> <!subteam^S0DBA> <!here>",
        "<bdi>@Ben Berger</bdi> <bdi>@dba</bdi> <span>@here</span>",
    ),
    ("<@U0BEN|<img>>", "&lt;@U0BEN|&lt;img&gt;&gt;"),
    (":tada: :nobody: 12:30:45", "<span>🎉</span> :nobody: 12:30:45"),
    ("<!date^86400^{date_num}|then>", "<time>1970-01-02</time>"),
    ("<!date^nonsense^{date}|then>", "<time>then</time>"),
    (
        "&gt; quoted *text*\nafter",
        "<blockquote>quoted <strong>text</strong></blockquote><div>after</div>",
    ),
    ("```\n*raw* &lt;x&gt;\n```", "<pre><code>*raw* &lt;x&gt;</code></pre>"),
    (
        "1. one\n2. two",
        "<div><span>1.</span><span>one</span></div><div><span>2.</span><span>two</span></div>",
    ),
]


@pytest.mark.parametrize(("text", "wanted"), MRKDWN, ids=[text[:20] for text, _ in MRKDWN])
async def test_mrkdwn_is_read_as_slack_reads_it(looking: Tab, text: str, wanted: str) -> None:
    script = f"""(async () => {{
        const {{ mrkdwn }} = await import('/static/mrkdwn.js');
        const box = document.createElement('div');
        box.append(...mrkdwn({json.dumps(text)}));
        for (const e of box.querySelectorAll('*'))
            while (e.attributes.length) e.removeAttribute(e.attributes[0].name);
        const lone = box.children.length === 1 && box.firstChild.tagName === 'DIV';
        return (lone ? box.firstChild : box).innerHTML;
    }})()"""
    assert await looking.eval(script) == wanted
