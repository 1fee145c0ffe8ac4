"""The distribution metadisk-client-python, which holds the package pymdc."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "pymdc" / "__init__.py").read_text(encoding="utf-8"), re.M
)
assert VERSION, "pymdc/__init__.py has no __version__"

LIBSECP256K1 = "btclib-secp256k1>=0.8"
BRIDGE = [
    "starlette>=1.7",
    "uvicorn>=0.54",
    "httptools>=0.7",
    "python-multipart>=0.0.32",
    "SQLAlchemy>=2.0.40",
    "obstore>=0.11",
    LIBSECP256K1,
]

setup(
    name="metadisk-client-python",
    version=VERSION[1],
    description="The client of the Metadisk API, blocking or with callbacks, and a bridge for it",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    license="MIT",
    license_files=["LICENSE"],
    packages=find_packages(include=["pymdc", "pymdc.*"]),
    package_data={"pymdc": ["py.typed"]},
    python_requires=">=3.10",
    install_requires=["urllib3>=2.7", "ecdsa>=0.19.2", "six", "websockets>=15"],
    extras_require={"fast": [LIBSECP256K1], "bridge": BRIDGE},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP",
        "Typing :: Typed",
    ],
)
