"""
The process that answers.

A request, in reading order:

- ``http_app``: the ASGI application: endpoint, key, media type, body, problem documents
- ``routes``: HTTP to a call, a value to HTTP
- ``schemas``: what the interface takes and gives
- ``engine``: the way of an utterance
- ``admission``: who may come in, so that the rest stay inside the budget
- ``tokenizer``: text -> token ids
- ``batcher``: concurrent requests -> micro-batches on worker threads
- ``batch_policy``: which waiting utterances go together
- ``backends``: the inference engines
- ``answers``: outputs -> decisions, events, answers
- ``language``: a guess at the language, by characters
- ``redaction``: personal details out of what is stored
- ``event_log``: what was answered, and what turned out to be right

What is around it:

- ``errors``: what can go wrong, and how it is told
- ``settings``: read from the environment, once
- ``serving``: everything that belongs to one version while it serves
- ``model_watcher``: follows the deployment of the model repository
- ``telemetry``: every metric
- ``json_logs``: log lines as JSON
- ``openapi``: the OpenAPI document
- ``app``: the composition root
- ``server``: uvicorn, with notice before the end
- ``workers``: one process or several
"""
