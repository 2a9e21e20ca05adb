using System.Globalization;
using FCtrans.Agent.Workers;
using FCtrans.Contracts;
using Google.Protobuf;

namespace FCtrans.Agent.Migration;

/// <summary>A migration's figures as they were at its commitment, for a source's worker that is started again after it. Without them it goes on all the same.</summary>
internal static class CommittedFigures
{
    private const string FiguresFile = "committed-figures";
    private const string MomentsFile = "committed-moments";

    public static void Keep(WorkerDirectory directory, MigrationProgress progress)
    {
        try
        {
            var (began, stopped) = progress.Moments;
            directory.Write(FiguresFile, progress.Snapshot().ToByteArray());
            directory.Mark(MomentsFile, string.Create(CultureInfo.InvariantCulture, $"{began} {stopped}"));
        }
        catch (IOException e)
        {
            WorkerLog.Write($"the figures of the migration are not kept: {e.Message}");
        }
    }

    public static void Restore(WorkerDirectory directory, MigrationProgress progress)
    {
        try
        {
            long[] moments = [.. (directory.Read(MomentsFile) ?? "").Split(' ').Select(text => long.Parse(text, CultureInfo.InvariantCulture))];
            progress.Restore(MigrationStatus.Parser.ParseFrom(File.ReadAllBytes(directory.File(FiguresFile))), (moments[0], moments[1]));
        }
        catch (Exception e) when (e is IOException or FormatException or InvalidProtocolBufferException or IndexOutOfRangeException)
        {
            WorkerLog.Write($"the figures of the migration up to its commitment are not known any more: {e.Message}");
        }
    }
}
