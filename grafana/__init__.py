"""Grafana: dashboards built in Python, their JSON, and provisioning. `python -m grafana.build` writes dashboards/."""
