// Makes what is in it when the reader comes near, so that a long page costs no more than a screen of it.
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

export function Seen({ height, children }: { height: number; children: ComponentChildren }) {
  const place = useRef<HTMLDivElement>(null);
  const [seen, setSeen] = useState(false);
  useEffect(() => {
    if (seen) return;
    const observer = new IntersectionObserver((entries) => entries.some((each) => each.isIntersecting) && setSeen(true), { rootMargin: "400px" });
    observer.observe(place.current!);
    return () => observer.disconnect();
  }, [seen]);
  return (
    <div ref={place} style={seen ? {} : { minHeight: `${height}px` }}>
      {seen && children}
    </div>
  );
}
