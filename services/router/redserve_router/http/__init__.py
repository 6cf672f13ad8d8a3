"""The OpenAI-compatible HTTP door.

app          routes: chat completions, models, health, metrics
chat         one chat completion, streamed or whole
schemas      what a client may write
unsupported  known fields that would change the meaning and are refused
parse        body -> question
replies      events -> OpenAI's shapes
sse          server-sent events that notice when the client goes
errors       the error tree as OpenAI's error object
page/        the page for people at /, where the manifest wants it
server       uvicorn inside the router's event loop
"""
