/** Calls `send` at most once per `gap` ms while calls come in, and always with the last one. */
export function throttled(send, gap) {
  let timer = null;
  let again = false;
  const fire = () => {
    again = false;
    send();
    timer = setTimeout(() => {
      timer = null;
      if (again) fire();
    }, gap);
  };
  return () => (timer === null ? fire() : (again = true));
}
