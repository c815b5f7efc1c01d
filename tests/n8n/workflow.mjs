// What n8n hands to a node when a workflow runs it: parameters, credentials, and requests over HTTP.

import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const { EvolutionApi } = require("n8n-nodes-evolution-api/dist/nodes/EvolutionApi/EvolutionApi.node.js");
const node = new EvolutionApi();

/** Runs one operation of the node, as a workflow with one item would; the data that it hands on. */
export async function run(credentials, resource, operation, parameters = {}) {
  const all = { resource, operation, ...parameters };
  const workflow = {
    getNode: () => ({ name: "Evolution API", type: "n8n-nodes-evolution-api" }),
    getCredentials: async (name) => {
      if (name !== "evolutionApi") throw new Error(`the node asks for the credentials ${name}`);
      return credentials;
    },
    getInputData: () => [{ json: {} }],
    continueOnFail: () => false,
    getNodeParameter: (name, _item, fallback) => {
      const value = name.split(".").reduce((within, part) => within?.[part], all);
      if (value !== undefined) return value;
      if (fallback !== undefined) return fallback;
      throw new Error(`Could not get parameter "${name}"`);
    },
    helpers: { request, returnJsonArray: (items) => [items].flat() },
  };
  const [[item]] = await node.execute.call(workflow);
  if (item.json.success !== true) throw new Error(`the node says ${JSON.stringify(item.json)}`);
  return item.json.data;
}

/** The request helper of n8n for what this node uses of it: JSON both ways, and an error for every status but 2xx. */
async function request({ method, uri, headers, body, json }) {
  if (json !== true) throw new Error("the node wants something else than JSON");
  const type = body === undefined ? {} : { "content-type": "application/json" };
  const options = { method, headers: { accept: "application/json", ...type, ...headers }, body: body && JSON.stringify(body) };
  const response = await fetch(uri, options);
  const text = await response.text();
  if (!response.ok) throw Object.assign(new Error(`${response.status} - ${text}`), { statusCode: response.status });
  return text ? JSON.parse(text) : undefined;
}
