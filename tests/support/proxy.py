"""The chaos suite's proxy, for all tests."""

from chaos.environments.proxy import Direction, TcpProxy

__all__ = ["Direction", "TcpProxy"]
