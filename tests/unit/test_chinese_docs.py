"""The Chinese pages say what the English ones say: the same sections, commands, settings, tables and links."""

import re

import pytest

from scripts import tidy

PAIRS = [("README.md", "README.zh.md"), ("docs/operations.md", "docs/operations.zh.md")]
OF_THE_PAGES_THEMSELVES = {"README.md", "README.zh.md", "docs/operations.md", "docs/operations.zh.md", "operations.md",
                           "operations.zh.md"}  # fmt: skip


def pages(english, chinese):
    return [(tidy.ROOT / name).read_text() for name in (english, chinese)]


def outside_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def shape(text):
    """What stands in a page, from the top: sections with their level, rows of tables, code blocks, numbered steps."""
    found = []
    code = False
    for line in text.splitlines():
        if line.startswith("```"):
            code = not code
            found.append("code") if code else None
        elif code:
            continue
        elif match := re.match(r"(#+) ", line):
            found.append(f"section {len(match[1])}")
        elif line.startswith("|"):
            found.append(f"row {line.replace(chr(92) + '|', '').count('|')}")
        elif re.match(r"\d+\. ", line):
            found.append("step")
    return found


def commands(text):
    """What can be typed: lines of code blocks, without what is said about them and without what stands for a name."""
    blocks = re.findall(r"^```\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    blocks = [block for block in blocks if "──" not in block]  # a drawing
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [re.sub(r"\s+", " ", line) for line in lines if re.match(r"[a-z./]", line)]


def marked(text):
    """Settings, commands and files in running text, whatever language is around them."""
    words = re.findall(r"`([^`\n]+)`", outside_code(text))
    return {
        word
        for word in words
        if re.fullmatch(r"FLEET_\w+|fleet [a-z-]+( [a-z-]+)?|fleet_\w+|[\w/]+\.(key|db|py|conf|pem)", word)
    }


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_sections_tables_steps_and_code_come_in_the_same_order(english, chinese):
    one, other = (shape(text) for text in pages(english, chinese))
    assert one == other


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_the_same_commands_can_be_typed(english, chinese):
    one, other = (commands(text) for text in pages(english, chinese))
    assert one == other


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_the_same_settings_and_files_are_named(english, chinese):
    one, other = (marked(text) for text in pages(english, chinese))
    assert one == other


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_the_same_pages_are_linked(english, chinese):
    def links(text):
        found = [re.sub(r"^(docs/images/boards)/(en|zh)\b", r"\1", link) for link in re.findall(r"\]\(([^)#]+)", text)]
        return {link for link in found if link not in OF_THE_PAGES_THEMSELVES}

    one, other = (links(text) for text in pages(english, chinese))
    assert one == other


def test_every_setting_has_the_same_default_in_chinese():
    def defaults(text):
        rows = [line.split("|") for line in text.splitlines() if re.match(r"\| `FLEET_[A-Z]", line)]
        return [(row[1].strip(), re.findall(r"`[^`]*`", row[2])) for row in rows]

    one, other = (defaults(text) for text in pages("docs/operations.md", "docs/operations.zh.md"))
    assert one == other
    assert len(one) > 40


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_the_chinese_page_is_in_chinese(english, chinese):
    _, text = pages(english, chinese)
    prose = re.sub(r"`[^`]*`|\([^)]*\)", "", outside_code(text))
    lines = [line for line in prose.splitlines() if len(re.findall(r"[A-Za-z]{2,}", line)) > 12]
    assert not [line for line in lines if not re.search(r"[一-鿿]", line)]
