def pytest_configure(config):
    config.addinivalue_line("markers", "weights: needs real packaged weights (a download of up to 250 MB per model)")
