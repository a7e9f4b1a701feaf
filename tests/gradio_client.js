// Calls the page by gradio's own JavaScript client, as `test_public.py` asks: node gradio_client.js ADDRESS PICTURE

import { readFile } from 'node:fs/promises';
import { Client } from '@gradio/client';

const [address, picture] = process.argv.slice(2);
const client = await Client.connect(address);
const found = { endpoints: Object.keys((await client.view_api()).named_endpoints) };

const drawn = await client.predict('/sample', { count: 1, steps: 2 });
found.drawn = [...new Uint8Array(await (await fetch(drawn.data[0].url)).arrayBuffer()).slice(1, 4)];

// a Blob has no file name
const upload = new Blob([await readFile(picture)]);
const [, numbers] = (await client.predict('/vae', { picture_from: 'upload', upload, samples: 1 })).data;
found.numbers = Object.keys(numbers);

found.frames = 0;
for await (const message of client.submit('/sample_stream', { count: 1, steps: 2 })) {
  if (message.type === 'data') found.frames += 1;
  if (message.type === 'status' && ['complete', 'error'].includes(message.stage)) break;
}

try {
  await client.predict('/sample', { steps: 1e9 });
} catch (error) {
  found.refused = error.message;
}
console.log(JSON.stringify(found));
process.exit();
