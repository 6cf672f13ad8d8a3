"""The life of a request.

dispatcher   the door to the inside: takes a question, gives a stream of events
life         one request from question to last token, over as many LLM replicas as it needs
generation   one hand-over to one LLM replica
courier      brings the items of a generation to encoders, again and again until they are there
item_state   what is known of one item
"""
