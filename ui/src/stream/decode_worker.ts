// The worker's side of decoding: frames in, plain items out, buffers moved back.

import { decodeFrame } from "../wire/frame";
import type { WorkerReply, WorkerRequest } from "./decoder";

// The parts of a worker's global scope that are used; the DOM types of the page describe another scope.
interface WorkerScope {
  onmessage: ((event: { data: WorkerRequest }) => void) | null;
  postMessage(message: WorkerReply, transfer?: ArrayBuffer[]): void;
}

const scope = globalThis as unknown as WorkerScope;

scope.onmessage = ({ data }) => {
  const results = data.frames.map(({ id, frame }) => ({ id, result: decodeFrame(frame, data.framing) }));
  // Record values are views into these buffers and move with them.
  scope.postMessage(
    { results },
    data.frames.map(({ frame }) => frame),
  );
};

scope.postMessage({ ready: true });
