"""Chat templates are programs of anybody's: they take little time, memory and text, or it is the file's fault."""

from __future__ import annotations

import resource
import sys
import threading
import time

import pytest
from foundry import ModelFormatError
from foundry.chat import render

MESSAGES = [{"role": "user", "content": "Hi"}]
BOMBS = {
    # time
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "loops with a condition that fails": "{% for a in range(99999) %}{% for b in range(99999) if false %}"
    "{% endfor %}{% endfor %}",
    "a recursive loop": "{% for a in [range(99)] recursive %}"
    "{{ loop(a is iterable and [range(99), range(99)] or []) }}{% endfor %}",
    "macros in loops": "{% macro m(n) %}{% for i in range(9999) %}{{ n }}{% endfor %}{% endmacro %}"
    "{% for i in range(9999) %}{% set x = m(1) %}{% endfor %}",
    "a map of maps": "{% for i in range(99999) %}{{ range(99999)|map('string')|map('length')|sum }}{% endfor %}",
    # recursion
    "a macro that calls itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "a macro that calls itself twice": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}"
    "{% endmacro %}{{ m(60) }}",
    "a block in itself": "{% block a %}{{ self.a() }}{% endblock %}",
    "an include": "{% include 'a' %}",
    # numbers
    "a power": "{{ 10 ** (10 ** 8) }}",
    "a power at the top of a statement": "{% set x = 9 ** 99999999 %}",
    "powers of powers": "{% set n = namespace(x=3) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}"
    "{% endfor %}{{ n.x }}",
    "rounding": "{{ 5|round(-100000000) }}{{ 1.5|round(100000000, 'ceil') }}",
    "bytes of a number": "{{ (5).to_bytes(10**10, 'big') }}",
    # widths
    "percent": "{{ '%999999999d' % 1 }}",
    "percent with a star": "{{ '%*d' % (999999999, 1) }}",
    "percent behind a key": "{{ '%(a(b)c)999999999d' % {'a(b)c': 1} }}",
    "percent's precision": "{{ '%.999999999f' % 1.5 }}",
    "the filter format": "{{ '%999999999d'|format(1) }}",
    "format": "{{ '{:>999999999}'.format(1) }}",
    "format with a width given": "{{ '{:>{}}'.format(1, 999999999) }}",
    "format with a width in text": "{{ '{:>{}}'.format(1, '999999999') }}",
    "format with a width in a list": "{{ '{:>{0[0]}}'.format([999999999]) }}",
    "format of a map": "{{ '{a:>999999999}'.format_map({'a': 1}) }}",
    "center": "{{ 'x'|center(10**9) }}",
    "the method center": "{{ 'x'.center(10**9) }}",
    "ljust": "{{ 'x'.ljust(10**9) }}",
    "zfill": "{{ 'x'.zfill(10**9) }}",
    "a method by map": "{{ (['x']|map(attribute='rjust')|first)(10**9) }}",
    "expandtabs": "{{ '\t\t'.expandtabs(10**9) }}",
    "indent": "{{ 'a\nb'|indent(10**9) }}",
    "indent by text": "{{ ('\n' * 99999)|indent('x' * 99999) }}",
    "batch": "{{ [1]|batch(10**9, 'x')|list }}",
    "slice": "{{ [1]|slice(10**9)|list }}",
    "tojson's indent": "{{ [1]|tojson(indent=10**9) }}",
    "a time": "{{ strftime_now('%999999999d' * 99) }}",
    # text and lists that grow
    "text times a number": "{{ 'a' * 10**9 }}",
    "a list times a number": "{{ [1] * 10**9 }}",
    "text doubled by +": "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "text doubled by ~": "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "text doubled by set": "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set y %}{{ n.x }}{{ n.x }}"
    "{% endset %}"
    "{% set n.x = y %}{% endfor %}",
    "text doubled by join": "{% set n = namespace(x='a') %}{% for i in range(60) %}{% set n.x = [n.x, n.x]|"
    "join %}{% endfor %}",
    "text doubled by a method": "{% set n = namespace(x='a') %}{% for i in range(60) %}"
    "{% set n.x = n.x.join(['', '', '']) %}{% endfor %}",
    "text grown by replace": "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x|"
    "replace('a', 'aa') %}"
    "{% endfor %}",
    "text grown by the method replace": "{% set n = namespace(x='aa') %}{% for i in range(60) %}"
    "{% set n.x = n.x.replace('a', 'aa') %}{% endfor %}",
    "text grown by translate": "{{ ('a' * 99999).translate({97: 'b' * 99999}) }}",
    "a list that names itself": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}"
    "{% set n.x = [n.x, n.x] %}{% endfor %}"
    "{{ n.x }}",
    "a map that names itself": "{% set n = namespace(x=1) %}{% for i in range(60) %}"
    "{% set n.x = dict(a=n.x, b=n.x) %}"
    "{% endfor %}{{ n.x|tojson }}",
    "lists compared": "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}"
    "{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}",
    "many long texts": "{% set n = namespace(x=[]) %}{% for i in range(9999) %}"
    "{% set n.x = n.x + ['a' * 99999] %}{% endfor %}",
    "many slices": "{% set s = 'a' * 4000000 %}{% for i in range(9999) %}{% set x = s[1:] %}{% endfor %}",
    "much text in a macro": "{% macro m() %}{% for i in range(9999) %}{{ 'a' * 999999 }}{% endfor %}"
    "{% endmacro %}{{ m()|length }}",
    "much text": "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}",
    "long lists by split": "{% for i in range(99) %}{{ ('a ' * 2000000).split(' ')|length }}{% endfor %}",
    "sums of lists": "{{ range(99999)|map('string')|map('list')|sum(start=[])|length }}",
    # what takes long with a little
    "a test of each entry": "{{ range(99999)|select('in', range(99999)|map('string')|list)|list }}",
    "keys that collide": "{{ dict.fromkeys(range(0, 99999 * 2305843009213693951, 2305843009213693951))|length }}",
    "a number of many digits": "{{ ('f' * 4000000)|int(0, 16) // (('7' * 2000000)|int(0, 16)) }}",
    "looking from the right": "{{ ('a' * 4000000).rfind('ab' + 'a' * 1000000) }}",
    "stripping": "{{ ('a' * 4000000).strip('b' * 3999999 + 'a') }}",
    "trimming": "{{ ('a' * 4000000)|trim('b' * 3999999 + 'a') }}",
    "large values in a loop": "{% set s = 'a b ' * 1000000 %}{% for i in range(9999) %}{{ s|wordcount }}{% endfor %}",
    "an encoding": "{{ ('é' * 3000000).encode('punycode') }}",
    "wordwrap": "{{ ('a ' * 2000000)|wordwrap(1) }}",
    "urlize": "{{ ('www.a.b ' * 400000)|urlize }}",
    "lipsum": "{{ lipsum(10**9) }}",
    "range": "{{ range(10**18)|list }}",
    "a long template": "{{ a }}" * 99999,
    "a template of many statements": "{{a}}" * 20000,
    "a deep template": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "loops in loops": "{% for a in b %}" * 30 + "{% endfor %}" * 30,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_that_takes_too_much_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foundry.chat.budget.MOST_SECONDS", 0.1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.thread_time()
    with pytest.raises(ModelFormatError, match=r"tokenizer\.chat_template: "):
        render(BOMBS[name], MESSAGES, True)
    assert time.thread_time() - began < 2
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < 400 << 20


@pytest.mark.parametrize(
    ("name", "bound"),
    [
        ("nested loops", "0.1 s of processor time"),
        ("a power", "at most 64 bits"),
        ("center", "up to 100000"),
        ("much text in a macro", "bytes of values made"),
        ("text times a number", "characters or entries of a value, found 1000000000"),
        ("a template of many statements", "at most 10000 tokens of Jinja"),
        ("a long template", "at most 131072 characters, found 699993"),
    ],
)
def test_the_error_says_the_bound(name: str, bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foundry.chat.budget.MOST_SECONDS", 0.1)
    with pytest.raises(ModelFormatError, match=bound):
        render(BOMBS[name], MESSAGES, True)


def test_what_is_given_may_be_long() -> None:
    """Bounds grow with the conversation: a template may say all of it, several times."""
    messages = [{"role": "user", "content": "word " * 2000}, {"role": "assistant", "content": "x" * 10_000}] * 200
    template = (
        "{% set n = namespace(all='') %}{% for m in messages %}{% set text = m.content|trim ~ '\n' %}"
        "{% set n.all = n.all + text %}{% endfor %}{{ n.all }}"
    )
    assert render(template, messages, True) == "".join(m["content"].strip() + "\n" for m in messages)


def test_widths_that_make_sense_are_as_ever() -> None:
    template = (
        "{{ '%5d|%-4s|%(a)s' % {'a': 1} if false else '%5d|%-4s' % (3, 'x') }}|{{ 'x'|center(5) }}|{{ 'a\nb'|"
        "indent(2) }}|"
        "{{ 2 ** 10 }}|{{ 'ab' * 2 }}|{{ [1, 2]|batch(3, 0)|list }}|{{ '{:>4}'.format(7) }}|{{ '100% of 20240101' }}|"
        "{{ 'a' ~ 1 ~ none }}|{{ (1, 2)[1:] }}|{{ [3, 4]|join('-') }}|{{ '-'.join(['p', 'q']) }}|{{ {'k': [1]}|"
        "tojson }}"
    )
    assert render(template, MESSAGES, True) == (
        "    3|x   |  x  |a\n  b|1024|abab|[[1, 2, 0]]|   7|100% of 20240101|a1None|(2,)|3-4|p-q|" + '{"k": [1]}'
    )


def test_threads_have_budgets_of_their_own() -> None:
    said: list[str] = []

    def run() -> None:
        said.extend(render("{% for i in range(2000) %}{{ i }}{% endfor %}", MESSAGES, True) for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == ["".join(map(str, range(2000)))] * 20
