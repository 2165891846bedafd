// TypeScript on Deno, with nothing but what the runtime brings.
export async function main(text: string = "millhand") {
  console.log(`hashing ${text.length} characters`);
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
  return { sha256: Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("") };
}
