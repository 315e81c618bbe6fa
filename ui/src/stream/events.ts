// What the stream tells the layers above.

import type { Heartbeat } from "../wire/control";
import type { DecodedFrame } from "../wire/frame";
import type { Place } from "../wire/hello";
import type { ServiceVersion } from "../wire/version";

export type ConnectionStatus =
  | { state: "connecting"; attempt: number }
  | { state: "catching_up" }
  | { state: "live" }
  /** The service could not go on with the replay in time; it is asked again from the same position. */
  | { state: "parked"; untilMs: number; attempt: number; reason: string }
  | { state: "waiting"; untilMs: number; attempt: number; reason: string }
  | { state: "stopped"; reason: string };

export interface PartitionStart {
  partition: number;
  from: bigint;
  low: bigint;
  next: bigint;
}

/**
 * Why a stream begins where it begins: at the end on a first visit; where the page stands after a lost connection
 * (`resume`) or a replay in parts (`on`); at the end because somebody wants to be live (`jump`); where somebody wants to
 * see history from.
 */
export type Mode = "first" | "resume" | "on" | "jump" | "history";

export type StreamEvent =
  /** What the service says of itself; perhaps only after some attempts. */
  | { type: "version"; version: ServiceVersion }
  | { type: "status"; status: ConnectionStatus }
  /** Somebody has asked for history, and the service is about to be asked; null when that is given up. */
  | { type: "wish"; history: Place | null }
  | {
      type: "welcome";
      topic: string;
      epoch: string;
      heartbeatMs: number;
      mode: Mode;
      /** Where history begins, in mode `history`. */
      history: Place | null;
      partitions: PartitionStart[];
    }
  /** A frame in order, checked. `waitedMs` is the time from its arrival at the page to here. */
  | { type: "data"; frame: DecodedFrame; waitedMs: number }
  | { type: "partition_added"; start: PartitionStart }
  /** With a new epoch offsets start again; otherwise the position alone was moved. */
  | { type: "reset"; partition: number; reason: string; newEpoch: boolean; before: bigint | null; nextOffset: bigint }
  /** Offsets that were not received and that nothing of the server explains, or that the user jumped over. */
  | { type: "hole"; partition: number; first: bigint; next: bigint; reason: "unexplained" | "jumped" }
  | { type: "progress"; remaining: bigint }
  /** The replay has reached what is live. */
  | { type: "caught_up" }
  | { type: "heartbeat"; heartbeat: Heartbeat }
  | { type: "backlog"; frames: number; bytes: number }
  | { type: "notice"; level: "warning" | "error"; topic: NoticeTopic; text: string };

export type NoticeTopic = "protocol" | "decoder" | "storage" | "server" | "connection";
