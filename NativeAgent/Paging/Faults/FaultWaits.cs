using FCtrans.Agent.Memory;

namespace FCtrans.Agent.Paging;

/// <summary>
/// The faults that wait now, for a page that is under way, whoever has asked for it, or for room, and since when: a thread of the guest waits
/// for one page. A thread that is kicked out of its wait, as a vCPU is by each interrupt, faults again; it has waited all the time. For
/// figures only: where there are more waiting threads than places, some are left out.
/// <para>The fault thread adds; whoever has put a page in says so afterwards. Allocates nothing.</para>
/// </summary>
internal sealed class FaultWaits(LatencyHistogram latency)
{
    private const int Most = 1024;

    private readonly Lock _lock = new();
    private readonly Wait[] _waits = new Wait[Most];
    private int _count;

    public int Count => Volatile.Read(ref _count);

    /// <summary>After this the caller looks whether the page is still what he has seen: if not, nobody else may call <see cref="Answered"/>.</summary>
    /// <param name="thread">0: not known.</param>
    /// <param name="startedAt">When the fault was read.</param>
    public void Add(long page, uint thread, long startedAt)
    {
        lock (_lock)
        {
            for (int i = 0; i < _count; i++)
            {
                ref var wait = ref _waits[i];
                if (wait.Thread == thread && (thread != 0 || wait.Page == page))
                {
                    if (wait.Page != page)
                    {
                        // It does not want the other one any more, or not now.
                        wait = new(page, thread, startedAt);
                    }

                    return;
                }
            }

            if (_count < Most)
            {
                _waits[_count] = new(page, thread, startedAt);
                Volatile.Write(ref _count, _count + 1);
            }
        }
    }

    /// <summary>The page has come from a sub-host and the table says so: who waited for it has waited so long.</summary>
    public void Answered(long page) => End(new(page, 1), record: true);

    /// <summary>Nobody waits for these any more, and they have not come from a sub-host.</summary>
    public void Over(PageRange pages) => End(pages, record: false);

    private void End(PageRange pages, bool record)
    {
        if (Count == 0)
        {
            return;
        }

        lock (_lock)
        {
            for (int i = _count - 1; i >= 0; i--)
            {
                if (_waits[i].Page < pages.First || _waits[i].Page >= pages.End)
                {
                    continue;
                }

                if (record)
                {
                    latency.RecordSince(_waits[i].StartedAt);
                }

                _waits[i] = _waits[_count - 1];
                Volatile.Write(ref _count, _count - 1);
            }
        }
    }

    private readonly record struct Wait(long Page, uint Thread, long StartedAt);
}
