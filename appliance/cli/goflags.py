"""Flags as Go programs take them, for scripts that were written for Headscale.

``--force=true``, ``--reusable=false``, ``-i=2``, ``-o=json``: click takes none of these. Arguments are
put into click's form before it reads them. Not for meaning. Nothing of ours is imported.
Source: pflag (what Headscale's command line is made of): a flag takes its value after ``=`` only, one
letter or many; values of boolean flags are those of Go's strconv.ParseBool.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def normalise(params: Sequence[click.Parameter], args: Sequence[str], *, whole: bool) -> list[str]:
    """Give the arguments in click's form.

    Not ``whole``: up to the first word that is no option (the verb, which reads the rest itself).
    """
    options = {name: param for param in params for name in _names(param)}
    done: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--" or (not whole and not word.startswith("-")):
            return [*done, word, *rest]
        name, sign, value = word.partition("=")
        option = options.get(name)
        if option is None:
            done.append(word)
        elif _is_switch(option):
            done = _switch(done, option, name, value if sign else "true")
        elif sign and not name.startswith("--"):
            done += [name, value]
        else:
            done.append(word)
            if not sign and rest:
                done.append(rest.pop(0))
    return done


def first_word(params: Sequence[click.Parameter], args: Sequence[str]) -> str | None:
    """Give the first argument that is neither an option nor an option's value."""
    options = {name: param for param in params for name in _names(param)}
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-") or word in ("-", "--"):
            return word
        option = options.get(word)
        if option is not None and not _is_switch(option) and rest:
            rest.pop(0)
    return None


def _names(param: click.Parameter) -> Sequence[str]:
    return param.opts if isinstance(param, click.Option) else ()


def _is_switch(option: click.Parameter) -> bool:
    return isinstance(option, click.Option) and option.is_flag


def _switch(done: list[str], option: click.Parameter, name: str, value: str) -> list[str]:
    if value in _TRUE:
        return [*done, name]
    if value not in _FALSE:
        raise click.BadParameter(f"{value!r} is neither true nor false", param_hint=name)
    return [word for word in done if word not in option.opts]
