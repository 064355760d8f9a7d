"""Every public name describes its arguments, result and errors, and has an example."""

import enum
import inspect
import re

import pytest

import lerax_dist
from tests.docs.test_site import NAMES

# What the callback protocol passes around: the example of `AbstractCallback` shows how.
PASSED = {
    *("AbstractCallbackState", "AbstractCallbackStepState", "EmptyCallbackState"),
    *("IterationContext", "ResetContext", "StepContext", "TrainingContext"),
}
# Explained where they are used: a partial's `finish` returns a `Finished`, and both loggers make a
# `RunConfig` of their arguments.
SHOWN_BY = {
    "Finished": lerax_dist.AbstractPartial,
    "RunConfig": lerax_dist.Logger.__init__,
}
# `ProcessGroup` describes their methods.
GROUPS = {"JaxGroup", "MPIGroup", "SoloGroup"}
# Arguments that the callback protocol gives the same meaning everywhere.
PROTOCOL = {"self", "cls", "ctx", "key"}


def text_of(thing):
    return inspect.getdoc(thing) or ""


def described(text):
    """Names that a docstring's lists (`Args:`, `Attributes:`) explain."""
    return set(re.findall(r"^ {4}\**(\w+): ", text, re.MULTILINE))


def parameters(function):
    return set(inspect.signature(function).parameters) - PROTOCOL


def methods_of(cls):
    for name in dir(cls):
        found = inspect.getattr_static(cls, name)
        if name.startswith("_") or getattr(lerax_dist, name, None) is found:
            continue
        if isinstance(found, property | classmethod | staticmethod) or inspect.isfunction(found):
            own = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
            if (own.__module__ or "").startswith("lerax_dist"):
                yield name, own, found


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_explains_itself(name):
    thing = getattr(lerax_dist, name)
    text = text_of(thing)
    assert len(text) > 20
    if inspect.isclass(thing):
        text += "\n" + text_of(thing.__init__)
        takes = set()
        if not issubclass(thing, enum.Enum | Warning) and not inspect.isabstract(thing):
            takes = parameters(thing.__init__) - {"args", "kwargs"}
    else:
        takes = parameters(thing)
        gives = inspect.signature(thing).return_annotation is not None
        assert ("\nReturns:\n" in text) == gives
    assert takes - described(text) == set()


@pytest.mark.parametrize("name", sorted(SHOWN_BY))
def test_what_has_no_example_is_shown_where_it_is_used(name):
    assert re.search(rf"\b{name}\b", text_of(SHOWN_BY[name]))


@pytest.mark.parametrize("name", sorted(set(NAMES) - PASSED - set(SHOWN_BY)))
def test_a_public_name_has_an_example(name):
    assert re.search(r"^Example:\n {4}```python\n", text_of(getattr(lerax_dist, name)), re.M)


@pytest.mark.parametrize("name", [n for n in NAMES if inspect.isclass(getattr(lerax_dist, n))])
def test_its_methods_explain_themselves(name):
    cls = getattr(lerax_dist, name)
    for method, function, found in methods_of(cls):
        # An override that does what the abstract method says has its docstring.
        texts = [text_of(base.__dict__[method]) for base in cls.__mro__ if method in base.__dict__]
        if isinstance(found, property):
            assert any(texts) or method in described(text_of(cls)), method
            continue
        assert any(texts), method
        whole = "\n".join(texts)
        elsewhere = re.search(r", see `\w+`", whole) or name in GROUPS
        documented = elsewhere or parameters(function) <= described(whole)
        assert documented, (method, whole)
