// Sends one message with nodemailer: send.mjs HOST PORT SECURE USER PASS CAFILE RCPT SUBJECT
import { readFileSync } from 'node:fs';
import nodemailer from 'nodemailer';

const [host, port, secure, user, pass, ca, rcpt, subject] = process.argv.slice(2);
const transport = nodemailer.createTransport({
  host, port: Number(port), secure: secure === 'true', requireTLS: true,
  auth: { user, pass }, tls: { ca: readFileSync(ca), servername: 'localhost' },
});
const info = await transport.sendMail({
  from: { name: 'Älice', address: user }, to: rcpt, subject,
  text: 'Grüße\n.\n..dots\n', html: '<p>Grüße</p>',
  attachments: [{ filename: 'naïve café.txt', content: 'attached\n' }],
});
if (info.rejected.length > 0 || info.accepted[0] !== rcpt) throw new Error(JSON.stringify(info));
console.log(info.response);
transport.close();
