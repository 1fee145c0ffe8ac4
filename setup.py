"""The distribution metadisk-client-python, which holds the package pymdc."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(
    r'^__version__ = "(.+)"$', (HERE / "pymdc" / "__init__.py").read_text(encoding="utf-8"), re.M
)
assert VERSION, "pymdc/__init__.py has no __version__"

LIBSECP256K1 = "btclib-secp256k1>=0.8.0.3"  # the first whose sign takes verify=False
# The tests pass with just these. urllib3 was not tried below 2.5; what later ones mended in
# decompression is not used here. ecdsa before 0.19.2 has a fault in reading DER (CVE-2026-33936),
# six 1.15 has no six.moves on Python 3.12, and websockets 14 raises a bare ValueError for an
# answer that is not HTTP.
REQUIRES = ["urllib3>=2.5", "ecdsa>=0.19.2", "six>=1.16", "websockets>=15"]
BRIDGE = [
    "starlette>=1.7",
    "uvicorn>=0.54",
    "httptools>=0.7",
    "python-multipart>=0.0.32",
    "SQLAlchemy>=2.0.53",  # earlier ones leave a file open if it is no database
    "alembic>=1.18",
    "prometheus-client>=0.20",
    LIBSECP256K1,
]
# click parses the verbs and completes them in shells, rich draws bars that fit the terminal, and
# platformdirs knows where each system keeps settings.
CLI = ["click>=8.4", "rich>=13.9", "platformdirs>=4.3"]
# psycopg speaks PostgreSQL's protocol, and obstore that of S3 with its signatures.
POSTGRES = ["psycopg[binary]>=3.3", "obstore>=0.11"]
EXTRAS = {"fast": [LIBSECP256K1], "bridge": BRIDGE, "cli": CLI, "postgres": POSTGRES}

setup(
    name="metadisk-client-python",
    version=VERSION[1],
    description="A command line, a client and a bridge (server) for the Metadisk API",
    long_description=(HERE / "README.rst").read_text(encoding="utf-8"),
    long_description_content_type="text/x-rst",
    # No project_urls: the project has no public address yet, and a made-up one would mislead.
    author="The pymdc developers",
    keywords=["metadisk", "storage", "files", "client", "server", "command line", "pytest"],
    license_expression="MIT",
    license_files=["LICENSE"],
    py_modules=["pytest_pymdc"],
    entry_points={
        "console_scripts": ["pymdc = pymdc._cli:main"],
        "pytest11": ["pymdc = pytest_pymdc"],
    },
    packages=find_packages(include=["pymdc", "pymdc.*"]),
    package_data={"pymdc": ["py.typed"], "pymdc.bridge": ["console/*"]},
    python_requires=">=3.10",
    install_requires=REQUIRES,
    extras_require={
        **EXTRAS,
        "all": sorted({requirement for extra in EXTRAS.values() for requirement in extra}),
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: Web Environment",
        "Framework :: Pytest",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Programming Language :: Python :: 3.15",
        "Programming Language :: Python :: Implementation :: CPython",
        "Topic :: Internet :: WWW/HTTP",
        "Topic :: System :: Archiving",
        "Typing :: Typed",
    ],
)
