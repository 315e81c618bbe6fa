// An identifier that has little room: its end tells it from others and is shown last of all to go.

const TAIL_CHARS = 8;

export function Id({ text }: { text: string }) {
  const split = Math.max(0, text.length - TAIL_CHARS);
  return (
    <span className="id">
      <span className="id-head">{text.slice(0, split)}</span>
      <span className="id-tail">{text.slice(split)}</span>
    </span>
  );
}
