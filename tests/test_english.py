"""Plain technical English: words that texts may not contain, and the form of help texts."""

import io
import re
import tokenize
from pathlib import Path

import pytest

from pose_jax import cli
from pose_jax.cli import options

ROOT = Path(__file__).resolve().parent.parent

# Banned words, and what to write instead.
WORDS = {
    "anew": "again",
    "anybody": "anyone",
    "by heart": "overfit",
    "everybody": "everyone, all people",
    "likeliest": "most likely, argmax",
    "made real": "resolved",
    "mend": "fix",
    "mended": "fixed",
    "mends": "fixes",
    "nobody": "no one, no person",
    "read out": "decode",
    "read-out": "decoding",
    "reads out": "decodes",
    "somebody": "someone, another person",
    "whoever": "the caller",
    "whomever": "the caller",
    # British spelling.
    "artefact": "artifact",
    "artefacts": "artifacts",
    "behaviour": "behavior",
    "centre": "center",
    "centres": "centers",
    "colour": "color",
    "colours": "colors",
    "grey": "gray",
    "initialise": "initialize",
    "initialised": "initialized",
    "initialises": "initializes",
    "learnt": "learned",
    "normalisation": "normalization",
    "normalise": "normalize",
    "normalised": "normalized",
    "optimise": "optimize",
    "optimised": "optimized",
    "optimiser": "optimizer",
    "optimisers": "optimizers",
    "recognise": "recognize",
    "recognised": "recognized",
    "recognises": "recognizes",
}
# Phrases may be broken across lines, also of a comment or a list.
GAP = r"(?:[ \t]|\n[ \t]*[#*>]*[ \t]*)+"
PATTERNS = {
    word: re.compile(rf"(?<!\w){GAP.join(map(re.escape, word.split()))}(?!\w)", re.I)
    for word in WORDS
}

FOLDERS = ("pose_jax", "docs", "configs", "experiments")
FILES = [ROOT / "README.md"] + [
    file
    for folder in FOLDERS
    for file in sorted((ROOT / folder).rglob("*"))
    if file.suffix in (".py", ".md")
]


def prose(code):
    """Python code with its comments and strings only, in their places: names may stay."""
    lines = [" " * len(line) for line in code.splitlines()]
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", -1)}
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type in kinds:
            (row, column), text = token.start, token.string.split("\n")
            for i, part in enumerate(text, row - 1):
                start = column if i == row - 1 else 0
                lines[i] = lines[i][:start] + part + lines[i][start + len(part) :]
    return "\n".join(lines)


def occurrences(text):
    """(line number, banned word) in prose; `names in backticks` do not count."""
    text = re.sub("`[^`\n]*`", lambda match: "`" * len(match.group()), text)
    return sorted(
        (text.count("\n", 0, match.start()) + 1, word)
        for word, pattern in PATTERNS.items()
        for match in pattern.finditer(text)
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_banned_word(file):
    text = file.read_text(encoding="utf-8")
    found = [
        f"{file.relative_to(ROOT)}:{line}: {word!r}; write {WORDS[word]!r}"
        for line, word in occurrences(prose(text) if file.suffix == ".py" else text)
    ]
    assert not found, "\n".join(found)


def test_words_are_found_across_lines_but_not_in_names():
    assert occurrences("amend, recommended; Mend it") == [(1, "mend")]
    assert occurrences("a\n    # overfitted, by\n    # heart") == [(2, "by heart")]
    assert occurrences("nobody_reads(`colour`)") == []
    code = 'colour = f("""\nthe colour""",  # of somebody\n  grey, "centre")'
    assert occurrences(prose(code)) == [(2, "colour"), (2, "somebody"), (3, "centre")]


# ------------------------------------------------------------------------------ help texts

# As the first word of a help text: it is a fragment, not a noun phrase or a verb.
FRAGMENTS = set(
    "of to as at by for from in on with what where who whose how whether those".split()
)


def help_texts():
    """(verb, option or argument, help text) of the whole command line."""
    for verb, declare in cli.VERBS.items():
        yield verb, "", declare.__doc__
        parser = options.Parser(prog=f"pose-jax {verb}", add_help=False)
        declare(parser)
        for action in parser._actions:
            yield verb, (action.option_strings or [action.dest])[0], action.help


@pytest.mark.parametrize(("verb", "name", "text"), list(help_texts()))
def test_a_help_text_begins_with_a_noun_phrase_or_a_verb(verb, name, text):
    where = f"pose-jax {verb} {name}: {text!r}"
    assert text, f"{where} is empty"
    assert text.split()[0].strip('".,:').lower() not in FRAGMENTS, where
    assert not text.endswith("."), f"{where}: no full stop, as it is no sentence"
