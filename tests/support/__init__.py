"""Real servers, proxies and waiting, for all tests."""
