"""What a config may write for a measure, and what it is told when it writes something else."""

import pytest

from simdist.errors import ConfigError
from simdist.measures import (
    SHIPPED,
    Cosine,
    Dot,
    Euclidean,
    Manhattan,
    Scaled,
    SqEuclidean,
    Squash,
    resolve,
)


@pytest.mark.parametrize("cls", [Cosine, Dot, Euclidean, Manhattan, SqEuclidean])
def test_a_name_gives_the_measure(cls):
    assert resolve(cls.name) == cls()
    assert resolve({"name": cls.name}) == cls()
    assert cls().spec() == {"name": cls.name}


def test_an_instance_is_itself():
    measure = Squash(Euclidean(), 2.0)
    assert resolve(measure) is measure


def test_modifiers_nest_in_mappings():
    spec = {
        "name": "squash",
        "scale": 3,
        "measure": {"name": "scaled", "measure": "manhattan", "lengthscales": [1, 10]},
    }
    measure = resolve(spec)
    assert measure == Squash(Scaled(Manhattan(), (1.0, 10.0)), 3.0)
    assert measure.spec() == {
        "name": "squash",
        "measure": {
            "name": "scaled",
            "measure": {"name": "manhattan"},
            "lengthscales": [1.0, 10.0],
        },
        "scale": 3.0,
    }


@pytest.mark.parametrize(
    ("written", "meant"),
    [("cosin", "cosine"), ("Cosine", "cosine"), ("l2", "euclidean"), ("IP", "dot")],
)
def test_an_unknown_name_lists_the_known_ones_and_the_nearest(written, meant):
    with pytest.raises(ConfigError, match=f"unknown measure '{written}'. Did you mean '{meant}'"):
        resolve(written)


def test_a_name_like_no_other_still_lists_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        resolve("quux")
    assert "Did you mean" not in str(caught.value)
    assert all(name in str(caught.value) for name in SHIPPED)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"measure": "cosine"}, "needs a name.*got keys \\['measure'\\]"),
        ({"name": "cosine", "p": 2}, "'cosine' has no field 'p'.*Its fields: none"),
        (
            {"name": "scaled", "measure": "dot", "lengthscale": [1.0]},
            "no field 'lengthscale'. Did you mean 'lengthscales'.*measure, lengthscales",
        ),
        ({"name": "squash", "measure": "euclidean"}, "'squash' needs scale"),
        ({"name": "squash", "measure": "euclidian", "scale": 1}, "Did you mean 'euclidean'"),
        ("no_such_package:Class", "cannot be imported: No module named 'no_such_package'"),
        ("simdist.measures:Cosinus", "cannot be imported.*Cosinus"),
        (":Class", "cannot be imported"),
        ("json:dumps", "'json:dumps' is not a Measure"),
        (Cosine, "Cosine is a class; pass an instance"),
        (7, "got int"),
        (None, "got NoneType"),
    ],
)
def test_what_cannot_be_a_measure_is_refused_with_a_way_out(spec, message):
    with pytest.raises(ConfigError, match=message):
        resolve(spec)
