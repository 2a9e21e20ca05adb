using System.Diagnostics;
using System.Management.Automation;

namespace FCtrans.Commands;

/// <summary>
/// Tells how one thing that takes its time comes on, with a line for each of its parts below it. Disposing it ends its lines, the parts'
/// first: a console keeps a line until that very line is said to be completed. Not for several threads at once.
/// </summary>
/// <param name="write">Where the records go: to the cmdlet's pipeline thread, or into a job.</param>
/// <param name="activity">The number of its line; the parts have those that follow.</param>
/// <param name="title">What goes on.</param>
internal sealed class ProgressWriter(Action<ProgressRecord> write, int activity, string title) : IDisposable
{
    private readonly SortedDictionary<int, string> _parts = [];
    private readonly long _began = Stopwatch.GetTimestamp();
    private bool _told;

    /// <summary>Since it was made.</summary>
    public double Seconds => Stopwatch.GetElapsedTime(_began).TotalSeconds;

    /// <param name="status">How it stands.</param>
    /// <param name="done">How much of it is done, 0 to 1; null: nobody knows.</param>
    /// <param name="secondsLeft">Until its end, as it goes now; null, or not a number: nobody knows.</param>
    public void Tell(string status, double? done = null, double? secondsLeft = null)
    {
        _told = true;
        write(Record(activity, title, status, done, secondsLeft));
    }

    /// <summary>The same of a part, which has no percentage of its own.</summary>
    /// <param name="part">Its number, from 0.</param>
    /// <param name="name">What it is called.</param>
    /// <param name="status">How it stands.</param>
    public void TellPart(int part, string name, string status)
    {
        _parts[part] = name;
        ProgressRecord record = Record(activity + 1 + part, name, status, null, null);
        record.ParentActivityId = activity;
        write(record);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach ((int part, string name) in _parts)
        {
            write(new ProgressRecord(activity + 1 + part, name, "done") { ParentActivityId = activity, RecordType = ProgressRecordType.Completed });
        }

        _parts.Clear();
        if (_told)
        {
            write(new ProgressRecord(activity, title, "done") { RecordType = ProgressRecordType.Completed });
            _told = false;
        }
    }

    private static ProgressRecord Record(int activity, string title, string status, double? done, double? secondsLeft)
    {
        var record = new ProgressRecord(activity, title, status);
        if (done is { } share && double.IsFinite(share))
        {
            record.PercentComplete = Math.Clamp((int)(100 * share), 0, 100);
        }

        if (secondsLeft is >= 0 and < int.MaxValue)
        {
            record.SecondsRemaining = (int)Math.Ceiling(secondsLeft.Value);
        }

        return record;
    }
}
