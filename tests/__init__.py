"""The tests; a package, so that pytest puts the checkout on the path and `tests.support` can be imported."""
