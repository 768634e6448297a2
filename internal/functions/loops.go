package functions

import _ "embed"

// The loops run handlers of the two languages that most functions are written in,
// with nothing installed but the language: they ask the Runtime API for an event,
// call the handler, and bring back what it returns. They are handed to the
// interpreter on its command line, so that no file of ours lies among the
// operator's. A Python that has Amazon's runtime interface client (awslambdaric)
// uses that.
var (
	//go:embed loops/python.py
	pythonLoop string
	//go:embed loops/node.mjs
	nodeLoop string
)
