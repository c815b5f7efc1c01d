// Stands in for n8n: the two errors that the node throws. What a workflow hands to a node is in ../workflow.mjs.
"use strict";

/** An error that keeps what it was made from. */
class NodeError extends Error {
  constructor(node, error, options = {}) {
    super(options.message ?? error?.message ?? String(error));
    this.node = node;
    this.description = options.description ?? error?.description;
  }
}

class NodeApiError extends NodeError {}
class NodeOperationError extends NodeError {}

module.exports = { NodeApiError, NodeOperationError };
