"""The tabs of the page, each of one form.

    request    what may be asked: limits, and a strict parser from raw values to a frozen request, or a `LimitError`
    compute    from a request to results; no gradio
    figure     from results to what is drawn
    text       TEXT: the title and every other text of the tab, in both languages
    build      the components, events and endpoints: `build(models, runner, page)`, called inside the tab

A small tab is one module with these parts in this order, a larger one a folder with a module for each. `TABS` of
`genlab/demo/app.py` lists the modules that have TEXT and `build`. CONTRIBUTING.md walks through a whole tab.
"""
