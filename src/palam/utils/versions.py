"""What is installed, to be said beside what was measured with it."""

import platform
from importlib.metadata import version

PACKAGES = ("palam", "torch", "transformers")


def installed_versions() -> dict[str, str]:
    """The versions of Python and of the packages that figures depend on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        versions[package] = version(package)
    return versions
