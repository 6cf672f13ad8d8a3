"""The page for people at `/`: ask, watch the answer and its timeline grow, see what is promised.

playground  routes and headers
facts       what the page shows of the service, as JSON
assets/     the page itself: HTML, CSS and JavaScript as they are, no build
"""
