"""What is generated for operators: the Grafana dashboard, and the alerts in the form of the Prometheus operator.

`python -m deploy` writes both; a test holds the files in the repository against it.
"""
