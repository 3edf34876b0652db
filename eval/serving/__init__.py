"""An index of clips by HTTP: a JSON API and a page, in one process or as replicas of Ray Serve.

    settings.py     what a server is started with: limits, token
    service.py      what requests are answered from: the searcher, sound and pictures
    answers.py      the JSON of the API
    api.py          the API's routes
    pages.py        the search page, the page of the API, the form that asks for the token
    ranges.py       parts of a sound, so that players seek
    guard.py        what every request passes: host, rate, token, size, number at a time
    access.py       tokens and cookies
    rate.py         requests by client and second
    numbers.py      Prometheus metrics
    app.py          the application of all these
    in_process.py   runs it in this process
    deployment.py   runs it on Ray Serve; the only file here that knows Ray

FastAPI and Ray Serve come with the extra `search`.
"""
