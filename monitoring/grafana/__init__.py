"""
Grafana dashboards as code. ``python -m monitoring.grafana.build`` writes them to ``json/``, which Grafana provisions.

In reading order:

- ``panels``: queries, panels and rows as values, and the JSON that Grafana reads
- ``service_health``: how fast the service answers, where the time goes, what it refuses and loses
- ``quality``: accuracy and calibration, from labels
- ``drift``: what has changed, with and without labels
- ``incidents``: what the sidecar diagnosed and did, how it is doing itself, and which version serves whom
- ``build``: writes the files
"""
