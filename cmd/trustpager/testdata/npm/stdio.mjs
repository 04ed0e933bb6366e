// Connects to an MCP server that is started as a command, as the npm SDK does it.
//
//   node stdio.mjs COMMAND [ARGUMENT]...
//
// It prints a line of JSON for each step.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';

const [command, ...args] = process.argv.slice(2);
const say = (step) => console.log(JSON.stringify(step));

const transport = new StdioClientTransport({ command, args, env: process.env, stderr: 'inherit' });
const client = new Client({ name: 'npm-sdk', version: '1' });
const faults = [];
client.onerror = (error) => faults.push(String(error));
try {
  await client.connect(transport);
} catch (error) {
  say({ refused: error.message, code: error.code });
  await client.close();
  process.exit(0);
}
say({ server: client.getServerVersion().name });
const { tools } = await client.listTools();
say({ tools: tools.length });
const queued = await client.callTool({ name: 'create_contact', arguments: { first_name: 'Nora', last_name: 'Stdio' } });
say({ queued: queued.structuredContent });

// A wait that is given up, while other calls go on.
const stop = new AbortController();
const wait = client.callTool({ name: 'wait_for_approval', arguments: { id: queued.structuredContent.approval.id } }, undefined, { signal: stop.signal });
const many = await Promise.all(Array.from({ length: 40 }, () => client.callTool({ name: 'list_contacts', arguments: { limit: 1 } })));
say({ many: many.filter((r) => r.structuredContent?.data?.length === 1).length });
stop.abort('enough');
say({ waited: await wait.then(() => 'to its end', () => 'given up') });

const begun = Date.now();
await client.close(); // ends its input, waits for its end for 2 seconds, and then kills it
say({ closed: Date.now() - begun, faults });
process.exit(0);
