// Connects to an MCP server with nothing but its URL, as the npm SDK does it.
//
//   node connect.mjs MCP_URL [CLIENT_ID_URL]
//
// It prints a line of JSON for each step. The one with "authorize" holds the
// URL that somebody has to open in a browser, and to say yes there.

import { createServer } from 'node:http';
import { once } from 'node:events';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';

const [mcpURL, clientMetadataUrl] = process.argv.slice(2);
const say = (step) => console.log(JSON.stringify(step));

// The browser comes back here with the code.
const callback = createServer();
callback.listen(0, '127.0.0.1');
await once(callback, 'listening');
const redirectUrl = `http://127.0.0.1:${callback.address().port}/callback`;
const returned = new Promise((resolve) => {
  callback.on('request', (req, res) => {
    const url = new URL(req.url, redirectUrl);
    res.setHeader('Content-Type', 'text/html');
    if (url.pathname !== '/callback') {
      res.writeHead(404).end();
      return;
    }
    res.end('<!doctype html><title>Connected</title><h1>Connected</h1>');
    resolve(url.searchParams);
  });
});

class Memory {
  constructor() {
    this.clientMetadataUrl = clientMetadataUrl;
  }
  get redirectUrl() {
    return redirectUrl;
  }
  get clientMetadata() {
    return {
      client_name: 'npm SDK client',
      redirect_uris: [redirectUrl],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
    };
  }
  state() {
    return 'npm-state';
  }
  clientInformation() {
    return this.client;
  }
  saveClientInformation(client) {
    this.client = client;
  }
  tokens() {
    return this.saved;
  }
  saveTokens(tokens) {
    this.saved = tokens;
    this.count = (this.count ?? 0) + 1;
  }
  redirectToAuthorization(url) {
    this.asked = url;
    if (!this.saved) {
      say({ authorize: url.toString() });
    }
  }
  saveCodeVerifier(verifier) {
    this.verifier = verifier;
  }
  codeVerifier() {
    return this.verifier;
  }
  invalidateCredentials(scope) {
    if (scope === 'all' || scope === 'tokens') {
      this.saved = undefined;
      this.lost = true;
    }
  }
}

const memory = new Memory();
const fresh = () => new Client({ name: 'npm-sdk', version: '1' });
let transport = new StreamableHTTPClientTransport(new URL(mcpURL), { authProvider: memory });
try {
  await fresh().connect(transport);
  throw new Error('it let a client in that has no token');
} catch (error) {
  if (!(error instanceof UnauthorizedError)) throw error;
}
const answer = await returned;
say({ returned: { state: answer.get('state'), iss: answer.get('iss'), error: answer.get('error') } });
await transport.finishAuth(answer.get('code'));
say({ client_id: memory.client.client_id, scope: memory.saved.scope });

transport = new StreamableHTTPClientTransport(new URL(mcpURL), { authProvider: memory });
const client = fresh();
await client.connect(transport);
const { tools } = await client.listTools();
say({ tools: tools.length });
const queued = await client.callTool({ name: 'create_contact', arguments: { first_name: 'Nora', last_name: 'npm' } });
say({ queued: queued.structuredContent });

// A token that is no good makes the SDK refresh.
memory.saved = { ...memory.saved, access_token: 'spoilt' };
const before = memory.count;
await client.listTools();
say({ refreshed: memory.count - before });

// The client gives its tokens back; after that it is let in no more.
const metadata = await (await fetch(new URL('/.well-known/oauth-authorization-server', mcpURL))).json();
const revoked = await fetch(metadata.revocation_endpoint, {
  method: 'POST',
  body: new URLSearchParams({ token: memory.saved.refresh_token, client_id: memory.client.client_id }),
});
let refused = 'it was let in';
try {
  await client.listTools();
} catch (error) {
  refused = error instanceof UnauthorizedError ? 'unauthorized' : String(error);
}
say({ revoked: revoked.status, refused, asked_again: memory.lost === true });
callback.close();
process.exit(0);
