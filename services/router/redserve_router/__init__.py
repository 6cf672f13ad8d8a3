"""Router: the door. Validates, builds prompts, spreads items over encoders, relays tokens.

Reading order, as a request goes:

    servicer, http   the two doors; both make a question and show an answer
    validate, media  what may come in
    metadata, prompt rows of each picture, tokens and spans: all known before anything is encoded
    dispatch         the life of a request
    replicas         connections and load
    clients          encoders and LLM replicas as typed calls
    assembly         puts it together
"""
